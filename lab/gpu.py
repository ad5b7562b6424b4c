"""A GPU host without GPUs: what its kernel would show of them, laid over /sys and /proc.

A unit of the host's own does it at each boot, so that a reboot means what it means elsewhere: the
module that lies on the disk is the one that is loaded then. `modprobe` and `uname` are replaced in
/usr/local/sbin, because the kernel below is this machine's. All else is real: DKMS, apt, systemd.
"""

import io
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from lab import hosts
from lab.state import Lab, LabError

SOURCES = Path(__file__).parent / "gpu_host"
PLACE = "usr/local/lib/lab-gpu"
EFI = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

NVSWITCH = "0x22a3"


@dataclass(frozen=True)
class Card:
    """A GPU: PCI device id, name, memory in MiB and compute capability, as nvidia-smi has them."""

    device: str
    name: str
    memory: int
    compute: str


H100 = Card("0x2330", "NVIDIA H100 80GB HBM3", 81559, "9.0")
T4 = Card("0x1eb8", "Tesla T4", 15360, "7.5")
P100 = Card("0x15f8", "Tesla P100-PCIE-16GB", 16384, "6.0")


@dataclass(frozen=True)
class Profile:
    """The devices on a host's bus, and whether its kernel has nouveau for them."""

    gpus: tuple[Card, ...] = ()
    switches: int = 0
    nouveau: bool = False
    secure_boot: bool = False


PROFILES = {
    "none": Profile(),
    "h100": Profile((H100,)),
    "8xh100": Profile((H100,) * 8, switches=4),
    # nouveau knows these two.
    "t4": Profile((T4,), nouveau=True),
    "pascal": Profile((P100,), nouveau=True),
    "mixed": Profile((P100, T4)),
    "secure-boot": Profile((H100,), secure_boot=True),
}


@dataclass
class Tree:
    """Files to be laid on the host's disk: path to content and mode."""

    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def add(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Add one file."""
        data = content.encode() if isinstance(content, str) else content
        self.files[path] = (data, mode)

    def archive(self) -> bytes:
        """Return all files as a tar."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, (content, mode) in self.files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def install(
    lab: Lab, name: str, profile: str, kernel: str | None, memory: int | None = None
) -> None:
    """Give a running host the bus of `profile`, from now on and over reboots.

    `kernel` is the release that its `uname` tells; by default the newest of the host's archive.
    `memory` is that of each GPU in MiB; by default what the real one has.

    Raises LabError when there is no such profile, or the host cannot be changed.
    """
    if profile not in PROFILES:
        raise LabError(f"There is no GPU profile {profile!r}: use one of {', '.join(PROFILES)}.")
    _ssh(
        lab,
        name,
        f"systemctl stop lab-gpu.service 2>/dev/null; rm -rf /{PLACE}; tar -C / -x --no-same-owner "
        f"&& {{ [ -s /{PLACE}/kernel ] || sh /{PLACE}/newest-kernel > /{PLACE}/kernel; }} "
        "&& systemctl daemon-reload && systemctl enable --quiet --now lab-gpu.service",
        tree(PROFILES[profile], kernel, memory).archive(),
    )


def tree(profile: Profile, kernel: str | None, memory: int | None = None) -> Tree:
    """Return the files of a profile."""
    files = Tree()
    for file in sorted(SOURCES.iterdir()):
        place = {
            "uname": "usr/local/sbin/uname",
            "modprobe": "usr/local/sbin/modprobe",
            "lab-gpu.service": "etc/systemd/system/lab-gpu.service",
        }.get(file.name, f"{PLACE}/{file.name}")
        files.add(place, file.read_bytes(), 0o644 if file.suffix == ".service" else 0o755)
    if kernel:
        files.add(f"{PLACE}/kernel", f"{kernel}\n")
    if profile.nouveau:
        files.add(f"{PLACE}/nouveau", "")
    if profile.secure_boot:
        # Four bytes of attributes, then the value.
        files.add(f"{PLACE}/efivars/{EFI}", b"\x06\x00\x00\x00\x01")
    # What each machine has, so that the tree is never empty.
    _device(files, "0000:00:00.0", "0x8086", "0x1237", "0x060000")
    for index, card in enumerate(profile.gpus):
        address = f"0000:{0x17 + index:02x}:00.0"
        _device(files, address, "0x10de", card.device, "0x030200")
        files.add(f"{PLACE}/gpus/{address}/information", information(address, index, card.name))
        files.add(f"{PLACE}/figures/{address}", f"{memory or card.memory} {card.compute}\n")
    for index in range(profile.switches):
        _device(files, f"0000:{0x60 + index:02x}:00.0", "0x10de", NVSWITCH, "0x068000")
    if profile.switches:
        files.add(f"{PLACE}/switches", f"{profile.switches}\n")
    return files


def information(address: str, minor: int, model: str) -> str:
    """Return /proc/driver/nvidia/gpus/ADDRESS/information, as NVIDIA's module writes it."""
    uuid = f"GPU-5a3f1c00-0000-4000-8000-{minor:012x}"
    values = {
        "Model": f"\t\t {model}",
        "IRQ": "  \t\t 100",
        "GPU UUID": f"\t {uuid}",
        "Video BIOS": "\t 96.00.74.00.1a",
        "Bus Type": "\t PCIe",
        "DMA Size": "\t 52 bits",
        "DMA Mask": "\t 0xfffffffffffff",
        "Bus Location": f"\t {address}",
        "Device Minor": f"\t {minor}",
        "GPU Excluded": "\t No",
    }
    return "".join(f"{key}:{value}\n" for key, value in values.items())


def _device(files: Tree, address: str, vendor: str, device: str, device_class: str) -> None:
    values = {"vendor": vendor, "device": device, "class": device_class}
    for name, value in values.items():
        files.add(f"{PLACE}/pci/{address}/{name}", f"{value}\n")


def _ssh(lab: Lab, name: str, command: str, stdin: bytes) -> None:
    argv = [*hosts.ssh(lab, name), command]
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise LabError(f"{name}: its GPUs could not be set up: {done.stderr.decode().strip()}")
