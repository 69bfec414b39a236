"""A machine's root to install packages in, which is gone afterwards: an overlay over this one's, or over a clean one.

The overlay lives in a mount namespace of its own; what is written there is kept in memory. A clean Debian to put below
it, which needs the network for what the packages depend on:

    debootstrap --variant=minbase bookworm /var/tmp/bookworm http://deb.debian.org/debian
    IMGTK_CLEAN_ROOT=/var/tmp/bookworm tests/run packages
"""
import os
import subprocess

from imgtk_test import execute, missing, tool

CLEAN = os.environ.get("IMGTK_CLEAN_ROOT")

# Waits until its input ends; whoever enters its namespace in the meantime finds the overlay on /mnt/root.
SET_UP = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
mount --rbind /dev /mnt/root/dev
mount --rbind /proc /mnt/root/proc
mount -t tmpfs tmpfs /mnt/root/tmp
mkdir /mnt/root/tmp/given
mount --bind "$2" /mnt/root/tmp/given
rm -f /mnt/root/var/lib/man-db/auto-update # or the index of all manual pages there is made again
[ "$1" = / ] || cp /etc/resolv.conf /mnt/root/etc/resolv.conf
echo ready
exec cat >/dev/null
"""


class Root:
    """The root, with the folder `given` as /tmp/given; a context."""

    def __init__(self, given):
        if os.geteuid() != 0:
            missing("only root can install packages")
        command = [tool("unshare"), "--mount", "--propagation", "private", "sh", "-c", SET_UP, "sh", CLEAN or "/", given]
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "ready\n":
            self.__exit__()
            missing("an overlay cannot be mounted here")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.holder.stdin.close()
        self.holder.wait(timeout=60)
        self.holder.stdout.close()

    def run(self, *words, **options):
        """Runs a command in the root; options as in execute()."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        return execute([tool("nsenter"), "--target", self.holder.pid, "--mount", tool("chroot"), "/mnt/root", *words], env=env,
                       **options)

    def install(self, *debs):
        """Installs packages of /tmp/given; what they depend on must be there already, but in a clean root."""
        paths = [f"/tmp/given/{deb.name}" for deb in debs]
        if CLEAN:
            self.run("apt-get", "update", timeout=600)
            self.run("apt-get", "install", "-y", "--no-install-recommends", *paths, timeout=600)
        else:
            self.run("dpkg", "--install", *paths)
