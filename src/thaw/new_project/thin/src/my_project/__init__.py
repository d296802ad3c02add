"""What this project adds to thaw: a class or function a file, each named by a YAML file in conf/."""
