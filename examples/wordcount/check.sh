#!/usr/bin/env bash
# Counts the words of all files below a directory, with coreutils instead of the network:
#
#     examples/wordcount/check.sh DIR > words.tsv
#
# The table equals the one that `wordcount reduce` writes, byte for byte.
# A word is a run of ASCII letters and digits; capitals count as small letters; every other
# byte and the end of a file separate words; of a longer word only the first 64 bytes count.
# Links are not followed. Files of any size and content are read as a stream, no process is
# started for a single file, and `sort` goes to $TMPDIR where its memory does not suffice.
#
# Needs bash and the GNU versions of coreutils, findutils and sed.
set -euo pipefail
export LC_ALL=C

if [ "$#" -ne 1 ] || [ ! -d "$1" ]; then
    echo "usage: $0 DIR > words.tsv" >&2
    exit 2
fi

scratch=$(cd -- "$(mktemp -d)" && pwd)
trap 'rm -rf -- "$scratch"' EXIT
# This file is put behind every other one: the end of a file separates words.
separator=$scratch/separator
echo > "$separator"
# In the format of find, % and \ have a meaning.
separator=${separator//\\/\\\\}
separator=${separator//%/%%}

cd -- "$1"
find . -type f -printf "%p\\0$separator\\0" |
    xargs -0 -r cat -- |
    tr 'A-Z' 'a-z' |
    tr -cs 'a-z0-9' '\n' |
    cut -b 1-64 |
    sort |
    uniq -c |
    # A file that begins with a separator makes an empty word. The counts lose their padding.
    sed -E -e '/^ *[0-9]+ $/d' -e 's/^ *([0-9]+) /\1\t/' |
    sort -t "$(printf '\t')" -k 1,1nr -k 2,2
