# Sourced by tools/quickstart and tools/run-tests: system packages, virtual environment, links of the mount helpers.
# Runs on a bare Debian or Ubuntu: bash, coreutils and apt, nothing else.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
fail() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}
is_root() { [ "$(id -u)" -eq 0 ]; }

# packages_for USE...: the packages that tools/packages lists for these uses.
packages_for() {
    local use package wanted
    while read -r use package _; do
        for wanted in "$@"; do
            if [ "$use" = "$wanted" ]; then printf '%s\n' "$package"; fi
        done
    done <"$root/tools/packages"
}

# missing_packages USE...: those of them that are not installed.
missing_packages() {
    local package
    for package in $(packages_for "$@"); do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            printf '%s\n' "$package"
        fi
    done
}

# ensure_packages USE...: install what is missing as root, else say exactly what is missing and carry on.
ensure_packages() {
    local missing
    if ! command -v dpkg-query >/dev/null; then
        say "This is not Debian or Ubuntu, so packages are yours to install. On Debian they are called:"
        say "    $(packages_for "$@" | tr '\n' ' ')"
        return
    fi
    missing=$(missing_packages "$@" | tr '\n' ' ')
    missing=${missing% }
    if [ -z "$missing" ]; then
        say "system packages: all there"
    elif is_root; then
        say "system packages: installing $missing"
        apt_get update
        # shellcheck disable=SC2086  # one word for each package
        apt_get install --no-install-recommends $missing
    else
        say "system packages: some are missing, and only root can install them:"
        say "    sudo apt-get install --no-install-recommends $missing"
        say "Going on without them."
    fi
}

# apt_get ARGUMENT...: quietly, never asking; its output is shown if it fails.
apt_get() {
    local log
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null; then
        cat -- "$log" >&2
        rm -f -- "$log"
        fail "apt-get $1 failed (see above)"
    fi
    rm -f -- "$log"
}

# ensure_venv [EXTRA]: .venv with OrionFS and the extra; does nothing if it is there and nothing has changed since.
ensure_venv() {
    local extra=${1-} python=${PYTHON:-python3} stamp
    command -v "$python" >/dev/null || fail "there is no $python: install Python 3.11 or later"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" --version) is too old: Python 3.11 or later is needed; PYTHON=python3.11 $0 uses another one"
    stamp="$("$python" --version) $root extra=$extra $(cd "$root" && sha256sum setup.cfg pyproject.toml setup.py | sha256sum)"
    # What was installed with the tests' extra serves quickstart, too.
    if [ -x "$venv/bin/mount.orionfs" ] && grep -qxF -e "$stamp" -e "${stamp/extra= /extra=test }" "$venv/installed"; then
        say "virtual environment: .venv is up to date"
        return
    fi
    say "virtual environment: making .venv (pyfuse3 is compiled, which takes a minute)"
    "$python" -m venv --clear "$venv" || fail "cannot make a virtual environment: apt install python3-venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -e "$root${extra:+[$extra]}" ||
        fail "pip could not install OrionFS (see above); gcc, pkg-config, libfuse3-dev and python3-dev must be there"
    printf '%s\n' "$stamp" >"$venv/installed"
}

# The links that root gets: mount(8) and umount(8) look for helpers in /sbin, people look for orionctl in the path.
helper_links="/sbin/mount.orionfs:mount.orionfs /sbin/mount.fuse.orionfs:mount.orionfs
/sbin/umount.orionfs:umount.orionfs /sbin/umount.fuse.orionfs:umount.orionfs /usr/local/bin/orionctl:orionctl"

make_links() {
    local pair link program
    if ! is_root; then
        say "mount helpers: skipped, only root can link them; mount -t orionfs and fstab need them, mount.orionfs does not"
        return
    fi
    for pair in $helper_links; do
        link=${pair%%:*} program=$venv/bin/${pair##*:}
        if [ -e "$link" ] && ! [ "$(readlink -- "$link")" = "$program" ]; then
            say "mount helpers: $link belongs to another installation and is left alone"
        else
            ln -sfn -- "$program" "$link"
        fi
    done
    say "mount helpers: linked into /sbin, orionctl into /usr/local/bin"
}

# Takes away only what points into this checkout.
remove_links() {
    local pair link
    for pair in $helper_links; do
        link=${pair%%:*}
        case $(readlink -- "$link") in
        "$root"/*)
            if is_root; then rm -f -- "$link"; else say "$link is left, only root can remove it"; fi
            ;;
        esac
    done
}
