"""The command lines of the programs, apart from what they do: --help and a mistyped flag are answered without torch."""
