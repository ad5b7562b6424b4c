"""Base images: Debian roots as a cloud provider ships them, built once and shared by all labs.

An image's name carries a hash of its recipe, so a changed recipe or mirror builds a new one.
Hosts use an image as the read-only layer of an overlay and never write to it. Root file systems
that somebody published are in lab/roots.py.
"""

import hashlib
import inspect
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.machine import KEYRING
from lab.state import CACHE, STATE, LabError, lock, read_json, run, say, timed

# What a host has before anybody comes: no python3, curl, nft or zstd, which the smallest images of
# providers lack, in which no cloud-init runs.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
)
# What Ubuntu 26.04 has otherwise than Debian, as far as Debian packages it.
UBUNTU_LIKE_PACKAGES = (
    "needrestart",
    "netplan.io",
    "rust-coreutils",
    "sudo-rs",
    "ufw",
    "unattended-upgrades",
)
DAY = 86400  # seconds that an image stays which nobody uses: another checkout may have its recipe
MACHINE_CAS = Path("/usr/local/share/ca-certificates")

# What a cloud image's first boot would have done, and what would only get in the way: timers
# that take apt's lock at an unforeseen moment, and login prompts on consoles that do not exist.
CUSTOMIZE = """set -eu
root=$1
chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD:ALL' > "$root/etc/sudoers.d/ops"
chmod 0440 "$root/etc/sudoers.d/ops"
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/machine-id "$root"/var/lib/dbus/machine-id
chroot "$root" systemctl --quiet enable systemd-networkd.service ssh.service
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer \
    console-getty.service getty.target systemd-firstboot.service
install -d -m 0755 "$root/var/log/journal"
echo LANG=C.UTF-8 > "$root/etc/default/locale"
"""
# The tools of Ubuntu 26.04 in the places of GNU's and sudo's; as there, cp, mv and rm stay GNU's.
# dpkg is told, so that an upgrade of coreutils or sudo leaves them there.
RUST_TOOLS = """
chroot "$root" sh -euc '
    for path in $(dpkg -L coreutils | grep ^/usr/bin/.) /usr/bin/sudo; do
        name=${path##*/}
        tool=/usr/lib/cargo/bin/coreutils/$name
        case $name in
            cp | mv | rm) continue ;;
            sudo) tool=/usr/lib/cargo/bin/sudo ;;
        esac
        [ -e "$tool" ] || continue
        dpkg-divert --quiet --local --rename --divert "$path.gnu" --add "$path"
        /usr/bin/coreutils ln -s "$tool" "$path"
    done
'
"""
# The build may have read its keys elsewhere (see _keyring).
OWN_KEYRING = f"""
sed -i 's#^Signed-By: .*#Signed-By: {KEYRING}#' "$root"/etc/apt/sources.list.d/*.sources
"""


@dataclass(frozen=True)
class Recipe:
    """A Debian release, what is added to the packages of all images, and what is done last."""

    release: str
    packages: tuple[str, ...] = ()
    customize: str = ""


# By the name that hosts are asked for with, and that `lab status` shows.
RECIPES = {
    "trixie": Recipe("trixie"),
    "bookworm": Recipe("bookworm"),
    "ubuntu-like": Recipe("trixie", UBUNTU_LIKE_PACKAGES, RUST_TOOLS),
}

DEFAULT = "trixie"


@dataclass(frozen=True)
class Mirror:
    """Where Debian's archives are for this machine. `security` is None when not known."""

    main: str
    security: str | None

    def sources(self, release: str) -> str:
        """Return the deb822 sources of a host of this release."""
        parts = [(self.main, f"{release} {release}-updates")]
        if self.security:
            parts.append((self.security, f"{release}-security"))
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n"
            for uri, suites in parts
        )


def mirror() -> Mirror | None:
    """Return the mirror that the machine's own apt uses; None on a machine that is no Debian."""
    found: dict[bool, str] = {}
    lines = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    )
    for line in lines.splitlines():
        uri, _, release = line.partition(" ")
        # Third parties have releases of Debian's names too: the archive's path tells them apart.
        if re.search(r"/debian(-security)?/?$", uri) or uri.startswith("mirror+file:"):
            found.setdefault(release.endswith("-security"), _resolved(uri))
    return Mirror(found[False], found.get(True)) if False in found else None


def _resolved(uri: str) -> str:
    """Return the first mirror of a mirror list, as Debian's own cloud images use them."""
    if not uri.startswith("mirror+file:"):
        return uri
    lines = Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text().splitlines()
    return next(line.split()[0] for line in lines if line.strip() and not line.startswith("#"))


def apt_options() -> str:
    """Return what of the machine's apt configuration a host needs to reach the same mirror."""
    wanted = re.compile(r"Acquire::(https?::|Check-Valid-Until |Check-Date |Retries )", re.I)
    lines = run(["apt-config", "dump"]).splitlines()
    return "\n".join([line for line in lines if wanted.match(line) and '""' not in line]) + "\n"


def ensure(name: str) -> Path:
    """Return the image of a recipe, built when it is not in the cache.

    Raises LabError when there is no mirror, no key to trust it by, or no space.
    """
    recipe, source, options = RECIPES[name], mirror(), apt_options()
    sources = source.sources(recipe.release) if source else ""
    parts = [recipe.release, *PACKAGES, *recipe.packages, CUSTOMIZE, recipe.customize, sources]
    image = CACHE / f"{name}-{short_hash(*parts, options, inspect.getsource(_build))}"
    return cached(image, lambda work: _build(recipe, work, sources, options))


def short_hash(*parts: str) -> str:
    """Return what tells apart images of one name."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def name_of(image: Path) -> str:
    """Return the name of an image, without the hash of its recipe."""
    return image.name.rpartition("-")[0]


def cached(image: Path, build: Callable[[Path], None]) -> Path:
    """Return `image`; when it is not in the cache, `build` makes `root` in a directory first."""
    name = name_of(image)
    if not image.is_dir():
        with lock(f"image-{name}", f"{name}: waiting for another lab that builds this image"):
            if not image.is_dir():
                say(f"{name}: building the base image (once; about half a minute)")
                with timed(f"{name}: base image built"):
                    _discard_others(name)
                    _in_one_step(image, build)
    # For _discard_others of a checkout that has another recipe.
    os.utime(image)
    return image


def _in_one_step(image: Path, build: Callable[[Path], None]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
    if shutil.disk_usage(CACHE).free < 2 << 30:
        raise LabError(f"{CACHE} has less than 2 GB free, which a base image needs: free some.")
    work = CACHE / f".{image.name}.{os.getpid()}"
    work.mkdir()
    try:
        build(work)
        (work / "root").rename(image)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(recipe: Recipe, work: Path, sources: str, options: str) -> None:
    release, packages = recipe.release, [*PACKAGES, *recipe.packages]
    keyring = str(_keyring(release))
    (work / "debian.sources").write_text(sources.replace(str(KEYRING), keyring))
    (work / "options").write_text(options)
    (work / "customize").write_text(
        CUSTOMIZE + (OWN_KEYRING if sources else "") + _certificates(sources) + recipe.customize
    )
    (work / "customize").chmod(0o755)
    run(
        [
            # It dies with us, and its mounts with it: a killed build leaves only files,
            # which _discard_others removes.
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
            *("--format=directory", f"--include={','.join(packages)}"),
            f"--keyring={keyring}",
            f"--aptopt={work / 'options'}",
            "--setup-hook=cp -a /etc/apt/auth.conf.d /etc/apt/auth.conf $1/etc/apt/ || true",
            f"--customize-hook={work / 'customize'}",
            *(release, work / "root"),
            *([work / "debian.sources"] if sources else []),
        ]
    )


def _certificates(sources: str) -> str:
    """Return the step that lets hosts trust a mirror behind the machine's own authority."""
    if "https://" not in sources or not list(MACHINE_CAS.glob("**/*.crt")):
        return ""
    return f'cp -a {MACHINE_CAS}/. "$root{MACHINE_CAS}/"\nchroot "$root" update-ca-certificates\n'


def _keyring(release: str) -> Path:
    """Return a keyring that knows the release.

    A machine older than the release may not: then the keys come from the newest image its keys
    do vouch for, where the archive's own package carries those of its successor.
    """
    if (KEYRING.parent / f"debian-archive-{release}-stable.gpg").exists():
        return KEYRING
    if release == "bookworm":
        raise LabError(f"{KEYRING.name} does not know {release}: upgrade debian-archive-keyring.")
    return Path(f"{ensure('bookworm')}{KEYRING}")


def _discard_others(name: str) -> None:
    """Remove killed builds (we hold the lock: no other is running) and images no host uses."""
    used = {read_json(record).get("image") for record in STATE.glob("*/hosts/*/host.json")}
    for old in [*CACHE.glob(f".{name}-*"), *CACHE.glob(f"{name}-*")]:
        is_wanted = not old.name.startswith(".") and time.time() - old.stat().st_mtime < DAY
        if name_of(old).lstrip(".") == name and str(old) not in used and not is_wanted:
            shutil.rmtree(old, ignore_errors=True)
