"""What a user's data source is, and how thaw reads one. Nothing else looks into a source."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from thaw.console import progress
from thaw.data.class_labels import ClassLabels
from thaw.data.describe import described, short
from thaw.data.image_file import as_rgb
from thaw.data.labels import Labels
from thaw.data.pairs import Text, as_one, parts_of
from thaw.data.splits import SPLITS
from thaw.errors import UserError
from thaw.faults import fault
from thaw.storage import digest
from thaw.types import Indices

READ_AT_ONCE = 64
"""Most samples asked of `__getitems__` in one call, so that few images are in memory."""
EXPECTED = "expected a PIL image, a uint8 array (H, W) or (H, W, 3), a uint8 tensor (C, H, W), a text (str), or a pair"


class Source(Protocol):
    """Labelled images or texts, like any map-style Dataset of torch: `source[index]` is a pair (input, label).

    Whoever brings data writes a class like this and a YAML whose `_target_` names it; see `thaw.data.digits`. The keys
    of the YAML are the arguments of the constructor, except for those in conf/data/shared: batches, order, splits,
    augmentation and normalisation are the data module's. Loader processes get a copy of the source, so that it must be
    picklable where processes are spawned.

    The input is the same each time it is asked for, and one of these; the first sample says which kind the source has:

    - a PIL image of any mode; it is turned as its EXIF orientation says, and what is transparent becomes white;
    - a uint8 array (H, W) or (H, W, 3), or a uint8 tensor (C, H, W) with one or three channels;
    - a text (str), or a pair of them, such as (premise, hypothesis).

    The label is an index into `class_names`: an int, or anything else that `operator.index` takes. With
    `task=multi_label` it may be a row of 0 and 1, one for each of `class_names`, and with `task=regression` a row of
    numbers, where `class_names` are the names of the quantities; or an index, if the names of the classes are numbers.

    A source may also have any of these attributes:

    - `targets`: the label of each sample; without it every sample is read once at the start.
    - `splits`: "train", "val", "test" or None for each sample; None counts as train if another sample has a split, and
      a split that no sample has is cut from train. Without it the data module splits all samples.
    - `groups`: what each sample belongs to, such as its patient, site or film: a text or number. No group is put into
      two splits.
    - `names`: a name for each sample by which later runs and messages know it; by default the beginning of a text, or
      the number of an image, so that images without names must keep their order.
    - `digests`: a digest of all that the input of each sample depends on. They reveal duplicates, and samples that
      changed since an earlier run, and key the cache. Without them every image is read once at the start.
    - `version`: a text that changes whenever any input does. In place of digests it keys the cache, with the names.
    - `left_out`, `notes`, `warnings`: lines for the report: samples that cannot be used, what else was found and is not
      used, and what is odd.
    - `max_value`: value of 16-bit images that the source shows white, for images that are predicted later.
    - `__getitems__(indices)`: a list of samples, as torch knows it, where whole batches are faster than single samples.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Name of each class, in the order of the labels; of each quantity, where labels are numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image | NDArray[Any] | Tensor | Text, Any]: ...


@dataclass(frozen=True)
class SourceFacts:
    """What is known of all samples of a source; every sequence has one entry for each sample."""

    labels: Labels
    splits: list[str | None] | None
    """train, val, test, or None for a sample that the source does not assign."""
    names: list[str] | None
    digests: list[str] | None
    groups: list[str] | None
    """What must share a split, such as the patient; None if samples do not belong together."""
    texts: list[Text] | None
    """All of them single texts, or all of them pairs; None if the samples are images."""
    left_out: list[str]
    """Samples that cannot be used, for the report."""
    notes: list[str]
    """What was found and is not used, for the report."""
    warnings: list[str]
    """What is odd, for the report."""

    @property
    def things(self) -> str:
        """What the samples are, in the plural."""
        return "images" if self.texts is None else "texts"

    def name(self, index: int) -> str:
        """Name of a sample for people and for later runs."""
        if self.names is not None:
            return self.names[index]
        return str(index) if self.texts is None else short(as_one(self.texts[index]))


def gives_texts(source: Source) -> bool:
    """Whether the samples are texts, or pairs of them, and not images. Raises UserError if the first one is neither."""
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        raise UserError(f"{_name(source)} is no data source: it lacks __len__ or __getitem__, see thaw.data.source")
    if not len(source):
        raise UserError(f"{_name(source)} has no samples")
    ((first, _),) = read_samples(source, [0])
    if not (is_text := isinstance(first, str) or _is_pair(first)):
        _as_image(first, _sample(source, 0))
    return is_text


def read_facts(source: Source, kind: type[Labels] = ClassLabels) -> SourceFacts:
    """Ask a source for all that it knows.

    Texts are all read. Images are if the source lacks `targets`, and again if it has neither `digests` nor `version`.

    Args:
        source: the source.
        kind: kind of its labels.

    Raises:
        UserError: something is missing, or not as `Source` says.
    """
    class_names, has_texts = _class_names(source), gives_texts(source)
    targets = _per_sample(source, "targets")
    # One sample in any case: it shows whether `targets` are of these samples.
    count = len(source) if has_texts or targets is None else 1
    samples = progress(read_samples(source, range(count)), count, "reading texts" if has_texts else "reading labels")
    texts, labels = list[Text](), []
    for number, (value, label) in enumerate(samples):
        labels.append(label)
        if has_texts:
            texts.append(_as_text(value, number, texts))
    read = kind.given(class_names, labels)
    known = read if targets is None else kind.given(class_names, targets)
    if len(known) and (differing := [number for number in range(count) if known.text(number) != read.text(number)]):
        number = differing[0]
        raise UserError(
            f"{_name(source)}.targets has the label {known.text(number)} for sample {number}, and the sample itself "
            f"has {read.text(number)}: they must agree"
        )
    splits, names, digests, groups = (_per_sample(source, name) for name in ("splits", "names", "digests", "groups"))
    if unknown := {*(splits or ())} - {*SPLITS, None}:
        raise UserError(f"{_name(source)}.splits has {unknown.pop()!r}: expected {', '.join(SPLITS)} or None")
    version = getattr(source, "version", None)
    if has_texts and digests is None:
        digests = [_text_digest(text) for text in texts]
    elif digests is None and version is None:  # or other images with the same numbers would be taken for these
        images = read_images(source, range(len(source)))
        digests = [image_digest(image) for image in progress(images, len(source), "reading images")]
    elif digests is None and names is None:
        digests = [digest(str(version), str(number)) for number in range(len(source))]
    return SourceFacts(
        known,
        splits,
        None if names is None else [str(name) for name in names],
        None if digests is None else [str(digest) for digest in digests],
        None if groups is None else [str(group) for group in groups],
        texts if has_texts else None,
        list(getattr(source, "left_out", [])),
        list(getattr(source, "notes", [])),
        list(getattr(source, "warnings", [])),
    )


def content_digests(source: Source, facts: SourceFacts, samples: Indices) -> list[str]:
    """Digest of each sample's input, or of what `version` stands for."""
    indices = samples.tolist()
    if facts.digests is not None:
        return [facts.digests[index] for index in indices]
    return [digest(str(source.version), facts.name(index)) for index in indices]  # type: ignore[attr-defined]


def read_samples(source: Source, indices: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """Yield (input, label) of these samples, one after the other or `READ_AT_ONCE` by `__getitems__`."""
    read_batch = getattr(source, "__getitems__", None)
    for first in range(0, len(indices), READ_AT_ONCE):
        chunk = list(indices[first : first + READ_AT_ONCE])
        if read_batch is None:
            samples: Any = (_read(source, source.__getitem__, number) for number in chunk)
        else:
            samples = _read(source, read_batch, chunk)
            if len(samples) != len(chunk):
                raise UserError(f"{_name(source)}.__getitems__ gave {len(samples)} samples for {len(chunk)} indices")
        for number, sample in zip(chunk, samples, strict=True):
            if not (isinstance(sample, (tuple, list)) and len(sample) == 2):
                raise UserError(f"sample {number} is {described(sample)}: expected a pair (input, label)")
            yield sample[0], sample[1]


def _read(source: Source, read: Callable[[Any], Any], asked: int | list[int]) -> Any:
    """`read(asked)`. Raises UserError, which names the file or the sample, if a file is gone or cannot be read."""
    try:
        return read(asked)
    except OSError as error:
        if fault(error) is not None:
            raise
        if error.filename is not None and error.strerror:
            raise UserError(f"{error.filename}: {error.strerror}") from error
        what = _sample(source, asked) if isinstance(asked, int) else f"one of the samples {asked[0]} to {asked[-1]}"
        raise UserError(f"{what} cannot be read: {error}") from error


def _sample(source: Source, number: int) -> str:
    """A sample in messages: its name, if the source has names."""
    names = getattr(source, "names", ())
    return str(names[number]) if number < len(names) else f"sample {number}"


def read_images(source: Source, indices: Sequence[int]) -> Iterator[Image.Image]:
    """Yield these images as RGB, like `read_samples`. Raises UserError for a sample that is no image."""
    for number, (value, _) in zip(indices, read_samples(source, indices), strict=True):
        yield _as_image(value, _sample(source, number))


def image_digest(image: Image.Image) -> str:
    """Digest of a whole image: augmented views show parts that evaluation does not."""
    return digest(str(image.size), image.tobytes())


def _class_names(source: Source) -> list[str]:
    names: Any = getattr(source, "class_names", None)
    is_named = names is not None and len(names) and all(isinstance(name, str) for name in names)
    if not is_named or isinstance(names, str):
        found = "has no class_names" if names is None else f"has class_names={short(repr(names))}"
        raise UserError(
            f"{_name(source)} {found}: expected the names of the classes as texts, in the order of the labels, such as "
            f"self.class_names = ['cat', 'dog']"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{_name(source)}.class_names has {', '.join(repeated)} more than once")
    return [str(name) for name in names]


def _per_sample(source: Source, attribute: str) -> list[Any] | None:
    """The values of an attribute with one for each sample; None if the source does not have it."""
    values = getattr(source, attribute, None)
    if values is not None and len(values) != len(source):
        raise UserError(
            f"{_name(source)}.{attribute} has {len(values):,} entries for {len(source):,} samples: expected one for "
            f"each, in the order of the samples"
        )
    return values if values is None else list(values.tolist() if hasattr(values, "tolist") else values)


def _as_text(value: Any, number: int, before: Sequence[Text]) -> Text:
    """The input of sample `number` as a text or pair, as those `before` it are."""
    text = tuple(value) if _is_pair(value) else value
    if not isinstance(text, (str, tuple)) or (before and isinstance(text, str) != isinstance(before[0], str)):
        expected = "a text (str)" if isinstance(before[0], str) else "a pair of texts"
        raise UserError(f"sample {number} is {described(value)}: expected {expected}, as sample 0 is one")
    return text


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _text_digest(text: Text) -> str:
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts_of(text)]
    return blake2b(encoded[0], digest_size=16).hexdigest() if len(encoded) == 1 else digest(*encoded)


def _as_image(value: Any, sample: str) -> Image.Image:
    """The input of a sample, which messages call `sample`, as an image, RGB."""
    if isinstance(value, Image.Image):
        try:
            return as_rgb(value)
        except (OSError, ValueError) as error:
            raise UserError(f"{sample} cannot be decoded: {error}") from error
    pixels = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    if isinstance(value, Tensor) and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    is_array = isinstance(pixels, np.ndarray)
    if is_array and pixels.dtype.kind == "f":
        code = "(255 * x).round().to(torch.uint8)" if pixels is not value else "np.rint(255 * x).astype(np.uint8)"
        raise UserError(
            f"{sample} is {described(value)}: expected uint8, so where your pixels go from 0 to 1, multiply "
            f"them by 255 and convert them: {code}"
        )
    if not is_array or pixels.dtype != np.uint8 or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        raise UserError(f"{sample} is {described(value)}: {EXPECTED}")
    return Image.fromarray(pixels).convert("RGB")


def _name(source: Source) -> str:
    return type(source).__name__
