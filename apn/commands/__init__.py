"""One module a command (or group of commands), imported only when that command runs. apn/cli.py has the list."""

# What `--help` says of options that `apn detect` shares with others.
HELP = {
    "weights": "Shipped weights by name, or a checkpoint folder.",
    "backend": "auto: ONNX Runtime where the weights have a graph.",
    "device": "Where the network runs.",
    "calibration": "A file of `apn calibrate` instead of the weights' own.",
}


class UsageError(ValueError):
    """The command line asks for something that cannot be: `main` prints the message and exits with code 2."""
