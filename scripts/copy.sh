# Sourced by scripts that plant bugs: they do so in a copy of the sources, never in the checkout.

# Makes the copy and goes there, as script $1; no second run of it at the same time. Wants
# `target`, the directory that cargo builds in, and `copy`, which is removed at the end.
enter_copy() {
    mkdir -p "$target"
    exec 9> "$target/lock"
    flock --nonblock 9 || { echo "$1: another run is under way in $target" >&2; exit 1; }

    # Always at one place, since cargo knows what it has built by its path.
    rm -rf "$copy"
    trap 'rm -rf "$copy"' EXIT
    trap 'exit 130' INT TERM
    mkdir "$copy"
    git ls-files -z --cached --others --exclude-standard |
        tar --create --null --files-from - --ignore-failed-read 2> /dev/null |
        tar --extract --directory "$copy"
    cd "$copy"
    # The copy is no repository, and is not to be taken for a part of one.
    export GIT_CEILING_DIRECTORIES=$target
}
