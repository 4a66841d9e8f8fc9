"""What an operator sees: log lines, metrics and daily figures. Events come in, words go out."""
