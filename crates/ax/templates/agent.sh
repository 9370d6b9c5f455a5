#!/bin/sh
# Answers with what it was told, a word on each line.
set -eu
tr -s ' \t\n' '\n' | while IFS= read -r word || [ -n "$word" ]; do
    [ -n "$word" ] && printf 'you said %s\n' "$word"
done
exit 0
