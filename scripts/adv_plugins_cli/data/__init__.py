"""From official files and text to what fairseq reads."""
