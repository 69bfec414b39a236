"""What is measured: imgtk's command and the peers' for each job, and what imgtk must reach."""
from pathlib import Path

from inputs import IMGTK

DOWNLOAD = Path(__file__).resolve().parent / "download"


class Row:
    """One job: imgtk's command, the peers' commands, and how their results are compared.

    In a command, {out} is the file to write; `form` is its format. Without `form` what the command prints is read and
    thrown away. `on` names a file system that the job runs on, or is "nbd" for servers whose sockets are in {in}
    (measure.py), or "http" for one that gives the inputs below {url} (served.py); None: where the inputs are.
    """

    def __init__(self, name, goal, mine, peers, form=None, on=None):
        self.name, self.goal, self.mine, self.peers, self.form, self.on = name, goal, mine, peers, form, on

    def at(self, url):
        """The same row with its inputs below a URL."""
        return Row(self.name, self.goal, self.mine.replace("{url}", url),
                   [peer.replace("{url}", url) for peer in self.peers], self.form)


def convert_row(name, goal, source, target, options="", peer_options="", extra_peers=()):
    """source: (format, path). qemu-img runs as it is and with its workers out of order."""
    words = f"-f {source[0]} -O {target} {source[1]} {{out}}"
    peers = [f"qemu-img convert {peer_options} {words}", f"qemu-img convert -W -m 16 {peer_options} {words}", *extra_peers]
    return Row(name, goal, f"{IMGTK} convert --no-sync {options} {words}", peers, target)


def same_command_row(name, goal, words):
    """A command that imgtk and qemu-img take alike."""
    return Row(name, goal, f"{IMGTK} {words}", [f"qemu-img {words}"])


def convert_rows(inputs):
    raw, plain = ("raw", inputs["os.raw"]), ("qcow2", inputs["plain.qcow2"])
    zstd = "-c -o compression_type=zstd"
    stream = "-o subformat=streamOptimized"
    return [
        convert_row("zlib qcow2 to raw", 2.5, ("qcow2", inputs["zlib.qcow2"]), "raw"),
        convert_row("zstd qcow2 to raw", 1.7, ("qcow2", inputs["zstd.qcow2"]), "raw"),
        convert_row("plain qcow2 to raw", 1.0, plain, "raw",
                    extra_peers=[f"nbdcopy -- [ qemu-nbd -r -f qcow2 {plain[1]} ] {{out}}"]),
        convert_row("raw to raw", 1.0, raw, "raw",
                    extra_peers=[f"cp --sparse=always {raw[1]} {{out}}", f"nbdcopy -- [ nbdkit file {raw[1]} ] {{out}}"]),
        convert_row("raw to zlib qcow2", 4, raw, "qcow2", "-c", "-c"),
        convert_row("raw to zlib qcow2, level 1", 5.5, raw, "qcow2", "-c -o compression_level=1", "-c"),
        convert_row("raw to zstd qcow2", 1.7, raw, "qcow2", zstd, zstd),
        convert_row("raw to plain qcow2", 1.0, raw, "qcow2"),
        convert_row("raw to streamOptimized VMDK", 8, raw, "vmdk", stream, stream),
        convert_row("streamOptimized VMDK to raw", 2, ("vmdk", inputs["stream.vmdk"]), "raw"),
        convert_row("raw to dynamic VHD", 1.0, raw, "vpc", "-o force_size=on", "-o force_size=on"),
        convert_row("dynamic VHD to raw", 1.0, ("vpc", inputs["dynamic.vhd"]), "raw"),
        convert_row("raw to VHDX", 1.0, raw, "vhdx"),
        convert_row("VHDX to raw", 1.0, ("vhdx", inputs["dynamic.vhdx"]), "raw"),
        convert_row("raw to VDI", 1.0, raw, "vdi"),
        convert_row("VDI to raw", 1.0, ("vdi", inputs["dynamic.vdi"]), "raw"),
        convert_row("raw to sparse VMDK", 1.0, raw, "vmdk"),
        convert_row("sparse VMDK to raw", 1.0, ("vmdk", inputs["sparse.vmdk"]), "raw"),
        convert_row("empty 1 TiB qcow2 to raw", 4, ("qcow2", inputs["empty1t.qcow2"]), "raw"),
        convert_row("empty 1 TiB qcow2 to qcow2", 4, ("qcow2", inputs["empty1t.qcow2"]), "qcow2"),
        convert_row("empty 16 TiB qcow2 to qcow2", 4, ("qcow2", inputs["empty16t.qcow2"]), "qcow2"),
        convert_row("overlay of 1 TiB over the OS image to qcow2", 2, ("qcow2", inputs["overlay.qcow2"]), "qcow2"),
        convert_row("fragmented qcow2, 64 KiB clusters, to raw", 1.0, ("qcow2", inputs["fragmented64k.qcow2"]), "raw"),
        convert_row("fragmented qcow2, 4 KiB clusters, to raw", 1.0, ("qcow2", inputs["fragmented4k.qcow2"]), "raw"),
        convert_row("deep chain to raw", 1.0, ("qcow2", inputs["chain.qcow2"]), "raw"),
    ]


def look_rows(inputs):
    rows = [
        same_command_row("map, 1 TiB with all metadata", 20, f"map --output=json {inputs['metadata1t.qcow2']}"),
        same_command_row("map, 15 TiB with all metadata", 20, f"map --output=json {inputs['metadata15t.qcow2']}"),
        same_command_row("map, a million fragments, JSON", 5, f"map --output=json {inputs['fragmented4k.qcow2']}"),
        Row("map, a million fragments, JSON lines", 2, f"{IMGTK} map --output=jsonl {inputs['fragmented4k.qcow2']}",
            [f"go-qcow2reader-example map {inputs['fragmented4k.qcow2']}"]),
        same_command_row("check of the OS image", 2, f"check {inputs['plain.qcow2']}"),
        same_command_row("compare of the OS image", 2, f"compare -f raw -F qcow2 {inputs['os.raw']} {inputs['plain.qcow2']}"),
        same_command_row("compare of the OS image, zlib", 2,
                         f"compare -f raw -F qcow2 {inputs['os.raw']} {inputs['zlib.qcow2']}"),
        Row("checksum of the OS image", 5, f"{IMGTK} checksum -f raw {inputs['os.raw']}",
            [f"sha256sum {inputs['os.raw']}"]),
        Row("checksum of the OS image, zlib", 2, f"{IMGTK} checksum -f qcow2 {inputs['zlib.qcow2']}",
            [f"sha256sum {inputs['os.raw']}"]),
        same_command_row("--version", 3, "--version"),
        same_command_row("info of a small image", 3, f"info {inputs['small.qcow2']}"),
    ]
    return rows


def shared_rows(inputs):
    """File systems that share blocks; the source is copied there first. ext4 has no files of 16 TiB."""
    raw = inputs["os.raw"].name
    empty = convert_row("empty 16 TiB qcow2 to raw on xfs", 4, ("qcow2", inputs["empty16t.qcow2"]), "raw")
    empty.on = "xfs"
    return [empty] + [Row(f"raw to raw on {kind}", "near 0 s", f"{IMGTK} convert --no-sync -f raw -O raw {{in}}/{raw} {{out}}",
                [f"cp --reflink=auto {{in}}/{raw} {{out}}", f"qemu-img convert -W -m 16 -f raw -O raw {{in}}/{raw} {{out}}"],
                "raw", kind) for kind in ("btrfs", "xfs")]


def nbd_rows(inputs):
    """With the connections, requests and their size that both have by default: 4, 64 and 256 KiB."""
    def row(name, source, target, options="", form=None):
        mine = f"{IMGTK} convert --no-sync {options} -f raw -O raw {source} {target}"
        return Row(name, 1.0, mine, [f"nbdcopy {source} {target}"], form, "nbd")

    def server(name):
        return f"nbd+unix:///?socket={{in}}/{name}"

    raw = inputs["os.raw"]
    return [
        row("NBD (file) to raw", server("file"), "{out}", form="raw"),
        row("NBD (file) to nothing", server("file"), "null:"),
        row("NBD (memory) to nothing", server("memory"), "null:"),
        row("raw to NBD (memory)", raw, server("empty"), "-n"),
        row("raw to NBD (file)", raw, server("target"), "-n"),
        row("NBD (file) to NBD (memory)", server("file"), server("empty"), "-n"),
        row("sparse 1 TiB from NBD to raw", server("sparse"), "{out}", form="raw"),
    ]


def http_rows(inputs):
    """Against downloading first and converting then."""
    return [Row(f"{kind} qcow2 from HTTP to raw", 1.0,
                f"{IMGTK} convert --no-sync -f qcow2 -O raw {{url}}/{inputs[f'{kind}.qcow2'].name} {{out}}",
                [f"{DOWNLOAD} {{url}}/{inputs[f'{kind}.qcow2'].name} qcow2 {{out}}"], "raw", "http")
            for kind in ("plain", "zlib")]


def all_rows(inputs):
    return convert_rows(inputs) + look_rows(inputs) + shared_rows(inputs) + nbd_rows(inputs) + http_rows(inputs)
