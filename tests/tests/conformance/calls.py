"""What system calls answer in the folder that is the first argument, a line each. Run in two folders, on a mount and on
a local file system, the lines must be the same. Nothing here depends on the clock, on inode numbers or on the order of
names."""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import shutil
import signal
import socket
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.readdir64.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2


def outcome(call):
    try:
        value = call()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return value if isinstance(value, (int, str, bytes, bool, list, tuple)) else "done"


def say(what, call):
    print(f"{chapter.__name__}: {what}: {outcome(call)}")


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def renameat2(one, other, how):
    return checked(libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), how))


def make(path, content=b"", mode=0o644):
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def within(call):
    """The outcome in a child process: one that ends with it, locks and identity included."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, str(outcome(call)).encode())
        os._exit(0)
    os.close(writer)
    said = b""
    while part := os.read(reader, 65536):
        said += part
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said.decode()


def as_user(uid, call, groups=()):
    def become():
        os.setgroups(list(groups))
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return call()

    return lambda: within(become)


def mode(path):
    return oct(os.lstat(path).st_mode)


def links():
    make("a", b"x")
    os.link("a", "b")
    say("two names", lambda: os.stat("a").st_nlink)
    os.rename("b", "c")
    say("moved", lambda: os.stat("c").st_nlink)
    os.link("a", "d")
    make("over")
    os.rename("over", "d")
    say("one replaced", lambda: os.stat("a").st_nlink)
    say("rename to another name of the same", lambda: (os.rename("a", "c"), sorted(os.listdir(".")))[1])
    os.mkdir("dir")
    os.mkdir("dir/sub")
    say("directory", lambda: os.stat("dir").st_nlink)
    os.rename("dir/sub", "sub")
    say("without its sub-directory", lambda: os.stat("dir").st_nlink)
    say("link of a directory", lambda: os.link("dir", "dir2"))
    say("link to a symbolic link", lambda: (os.symlink("a", "s"), os.link("s", "s2", follow_symlinks=False), mode("s2"))[2])
    say("missing", lambda: os.link("none", "x"))
    say("link by its descriptor after it was removed", relink)


def relink():
    descriptor = os.open("gone", os.O_CREAT | os.O_RDWR)
    os.unlink("gone")
    os.link(f"/proc/self/fd/{descriptor}", "back", follow_symlinks=True)


def renames():
    make("a", b"a")
    make("b", b"b")
    opened = os.open("b", os.O_RDONLY)
    os.rename("a", "b")
    say("an open file that was replaced", lambda: (os.read(opened, 9), os.fstat(opened).st_nlink, read("b")))
    say("no replace", lambda: renameat2("b", "b", NOREPLACE))
    make("c", b"c")
    say("no replace of another", lambda: renameat2("b", "c", NOREPLACE))
    say("exchange", lambda: (renameat2("b", "c", EXCHANGE), read("b"), read("c")))
    os.makedirs("dir/sub/deep")
    say("exchange file and directory", lambda: (renameat2("b", "dir", EXCHANGE), mode("b"), mode("dir"))[1:])
    renameat2("b", "dir", EXCHANGE)
    say("exchange with a missing one", lambda: renameat2("b", "none", EXCHANGE))
    say("both flags", lambda: renameat2("b", "c", NOREPLACE | EXCHANGE))
    say("unknown flag", lambda: renameat2("b", "c", 64))
    say("into itself", lambda: os.rename("dir", "dir/sub/dir"))
    say("exchange with its own inside", lambda: renameat2("dir", "dir/sub", EXCHANGE))
    say("over its parent", lambda: os.rename("dir/sub/deep", "dir"))
    os.mkdir("empty")
    say("over an empty directory", lambda: os.rename("dir/sub", "empty"))
    say("over a full one", lambda: (os.mkdir("other"), os.rename("other", "empty")))
    say("file over directory", lambda: os.rename("b", "empty"))
    say("directory over file", lambda: os.rename("empty", "b"))
    say("with a slash", lambda: os.rename("b", "b2/"))
    say("directory with a slash", lambda: os.rename("empty", "empty2/"))
    say("dot", lambda: os.rename("empty2/.", "x"))
    say("dot dot", lambda: os.rename("empty2/..", "x"))
    say("symbolic link itself", lambda: (os.symlink("none", "s"), os.rename("s", "s2"), os.readlink("s2"))[2])
    say("over a symbolic link to a directory", lambda: (os.symlink("empty2", "l"), os.rename("empty2", "l")))
    say("what is there", lambda: sorted(os.listdir(".")))


def sticky():
    os.mkdir("dir")
    os.chmod("dir", 0o1777)
    make("dir/root")
    make("dir/mine")
    os.chown("dir/mine", 1000, 1000)
    os.mkdir("dir/folder")
    say("unlink another's", as_user(1001, lambda: os.unlink("dir/mine")))
    say("rename another's", as_user(1001, lambda: os.rename("dir/mine", "dir/x")))
    say("rename over another's", as_user(1001, lambda: (make("dir/theirs"), os.rename("dir/theirs", "dir/mine"))))
    say("rmdir another's", as_user(1001, lambda: os.rmdir("dir/folder")))
    say("link another's", as_user(1001, lambda: os.link("dir/root", "dir/linked")))
    say("unlink one's own", as_user(1000, lambda: os.unlink("dir/mine")))
    say("the mode of what is made there", as_user(1000, lambda: (make("dir/new"), mode("dir/new"))[1]))


def set_id_bits():
    def fresh(bits):
        make("f", b"content")
        os.chown("f", 1000, 1000)
        os.chmod("f", bits)

    for bits in (0o4777, 0o2777, 0o6777, 0o2767):
        fresh(bits)
        say(f"{bits:o} written by another", as_user(1001, lambda: (write_at("f", b"x"), mode("f"))[1]))
        fresh(bits)
        say(f"{bits:o} written by its owner", as_user(1000, lambda: (write_at("f", b"x"), mode("f"))[1]))
        fresh(bits)
        say(f"{bits:o} written by root", lambda: (write_at("f", b"x"), mode("f"))[1])
        fresh(bits)
        say(f"{bits:o} truncated by another", as_user(1001, lambda: (os.truncate("f", 1), mode("f"))[1]))
        fresh(bits)
        say(f"{bits:o} opened with O_TRUNC", as_user(1001, lambda: (os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)), mode("f"))[1]))
        fresh(bits)
        say(f"{bits:o} given away", lambda: (os.chown("f", 1001, 1001), mode("f"))[1])
        fresh(bits)
        say(f"{bits:o} chown of nothing", lambda: (os.chown("f", -1, -1), mode("f"))[1])
    fresh(0o755)
    os.chown("f", 1000, 5)
    say("set-group-id for a group of others", as_user(1000, lambda: (os.chmod("f", 0o2755), mode("f"))[1]))
    os.mkdir("dir")
    os.chown("dir", 0, 5)
    os.chmod("dir", 0o2777)
    say("a file in such a directory", as_user(1000, lambda: (make("dir/f"), os.stat("dir/f").st_gid)[1]))
    say("a directory in it", as_user(1000, lambda: (os.mkdir("dir/d"), mode("dir/d"), os.stat("dir/d").st_gid)[1:]))
    say("asking for the bit", as_user(1000, lambda: (os.close(os.open("dir/g", os.O_CREAT | os.O_WRONLY, 0o2775)), mode("dir/g"))[1]))


def write_at(path, content, at=0):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.pwrite(descriptor, content, at)
    finally:
        os.close(descriptor)


def permissions():
    make("f", b"secret", 0o640)
    os.chown("f", 1000, 1000)
    say("read by others", as_user(1001, lambda: read("f")))
    say("read by the group", as_user(1001, lambda: read("f"), groups=[1000]))
    say("written by the group", as_user(1001, lambda: write_at("f", b"x"), groups=[1000]))
    say("chmod by others", as_user(1001, lambda: os.chmod("f", 0o777)))
    say("chown by its owner", as_user(1000, lambda: os.chown("f", 1001, -1)))
    say("chgrp to a group of one's own", as_user(1000, lambda: os.chown("f", -1, 1001), groups=[1001]))
    say("chgrp to another", as_user(1000, lambda: os.chown("f", -1, 5)))
    say("times by others", as_user(1001, lambda: os.utime("f", (1, 1))))
    say("now by others", as_user(1001, lambda: os.utime("f")))
    os.chmod("f", 0o666)
    say("now by who may write", as_user(1001, lambda: os.utime("f")))
    say("times by who may write", as_user(1001, lambda: os.utime("f", (1, 1))))
    os.mkdir("dir", 0o700)
    make("dir/f", b"", 0o666)
    say("through a closed directory", as_user(1000, lambda: read("dir/f")))
    os.chmod("dir", 0o711)
    say("through one that may be passed", as_user(1000, lambda: read("dir/f")))
    say("listing it", as_user(1000, lambda: os.listdir("dir")))
    os.chmod("dir", 0o744)
    say("listing one that may be read", as_user(1000, lambda: os.listdir("dir")))
    say("passing it", as_user(1000, lambda: read("dir/f")))
    say("creating in it", as_user(1000, lambda: make("dir/g")))
    say("access as root", lambda: (os.access("f", os.R_OK), os.access("f", os.X_OK)))
    say("device by a user", as_user(1000, lambda: os.mknod("/proc/self/cwd/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))))


def names():
    os.symlink("loop", "loop")
    say("a link to itself", lambda: read("loop"))
    for number in range(45):
        os.symlink(f"chain{number + 1}", f"chain{number}")
    make("chain45", b"end")
    say("forty links", lambda: read("chain5"))
    say("more than forty", lambda: read("chain4"))
    say("255 bytes", lambda: (make("n" * 255), os.stat("n" * 255).st_size)[1])
    for what, call in {
        "open": lambda name: os.open(name, os.O_CREAT | os.O_WRONLY),
        "mkdir": os.mkdir,
        "stat": os.stat,
        "unlink": os.unlink,
        "symlink": lambda name: os.symlink("x", name),
        "rename": lambda name: os.rename("loop", name),
    }.items():
        say(f"256 bytes, {what}", lambda: call("n" * 256))
    say("a long path", lambda: os.stat("./" * 2048 + "x"))
    say("a long target", lambda: (os.symlink("t" * 4095, "long"), len(os.readlink("long")))[1])
    say("a longer one", lambda: os.symlink("t" * 4096, "longer"))
    say("an empty one", lambda: os.symlink("", "empty"))
    say("a deep path", deep)
    make("f")
    say("below a file", lambda: os.stat("f/x"))
    say("a file with a slash", lambda: os.stat("f/"))
    say("mkdir with a slash", lambda: os.mkdir("d/"))
    say("mkdir again", lambda: os.mkdir("d"))
    say("unlink of a directory", lambda: os.unlink("d"))
    say("rmdir of a file", lambda: os.rmdir("f"))
    say("rmdir of dot", lambda: os.rmdir("d/."))
    say("rmdir of dot dot", lambda: os.rmdir("d/.."))
    say("rmdir of a full one", lambda: (make("d/x"), os.rmdir("d")))
    say("readlink of a file", lambda: os.readlink("f"))
    say("bytes that are no text", lambda: (make(b"\xff\xfe"), b"\xff\xfe" in os.listdir(b"."))[1])
    say("upper and lower case", lambda: (make("Name"), make("name"), len({"Name", "name"} & set(os.listdir("."))))[2])


def deep():
    """Directories in directories, far longer than a path may be; to the bottom, and all the way up again."""
    depth, top = 300, os.open(".", os.O_RDONLY)
    for number in range(depth):
        os.mkdir("deep" * 10)
        os.chdir("deep" * 10)
    make("bottom", b"there")
    found = read("bottom")
    too_long = outcome(lambda: os.stat(("deep" * 10 + "/") * depth, dir_fd=top))
    os.unlink("bottom")
    for number in range(depth):
        os.chdir("..")
        os.rmdir("deep" * 10)
    return [found, too_long, os.path.samestat(os.fstat(top), os.stat("."))]


def opening():
    make("f", b"0123456789")
    os.symlink("f", "s")
    os.symlink("none", "dangling")
    os.mkdir("d")
    flags = {
        "exclusive": ("f", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        "exclusive over a link": ("dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        "no follow": ("s", os.O_RDONLY | os.O_NOFOLLOW),
        "directory wanted": ("f", os.O_RDONLY | os.O_DIRECTORY),
        "directory for writing": ("d", os.O_WRONLY),
        "create over a directory": ("d", os.O_CREAT | os.O_RDWR),
        "truncate a directory": ("d", os.O_RDONLY | os.O_TRUNC),
        "missing": ("none/x", os.O_RDONLY),
        "through a dangling link": ("dangling", os.O_CREAT | os.O_WRONLY),
        "create and directory": ("new", os.O_CREAT | os.O_DIRECTORY | os.O_RDONLY),
    }
    for what, (path, how) in flags.items():
        say(what, lambda: os.close(os.open(path, how)))
    say("made through it", lambda: mode("none"))
    reading, appending = os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY | os.O_APPEND)
    say("write on a reader", lambda: os.write(reading, b"x"))
    say("read on a writer", lambda: os.read(appending, 1))
    say("pwrite appends with O_APPEND", lambda: (os.pwrite(appending, b"end", 0), read("f")))
    say("before the start", lambda: os.lseek(reading, -1, os.SEEK_SET))
    say("past the end", lambda: (os.lseek(reading, 100, os.SEEK_SET), os.read(reading, 1)))
    say("truncate on a reader", lambda: os.ftruncate(reading, 1))
    say("truncate to less than nothing", lambda: os.truncate("f", -1))
    say("truncate a directory by name", lambda: os.truncate("d", 0))
    say("read of a directory", lambda: os.read(os.open("d", os.O_RDONLY), 1))
    path_only = os.open("f", os.O_PATH)
    say("read by a path descriptor", lambda: os.read(path_only, 1))
    say("stat by it", lambda: os.fstat(path_only).st_size)
    say("fsync of a reader", lambda: os.fsync(reading))
    say("fsync of a directory", lambda: os.fsync(os.open("d", os.O_RDONLY)))
    say("syncfs", lambda: checked(libc.syncfs(reading)))
    shutil.copy("/bin/true", "program")
    writer = os.open("program", os.O_WRONLY)
    say("running what is open for writing", lambda: os.posix_spawn("./program", ["program"], {}))
    os.close(writer)
    shutil.copy("/bin/sleep", "sleeper")
    sleeper = os.posix_spawn("./sleeper", ["sleeper", "60"], {})
    say("writing what runs", lambda: os.open("sleeper", os.O_WRONLY))
    say("truncating what runs", lambda: os.truncate("sleeper", 0))
    say("removing what runs", lambda: os.unlink("sleeper"))
    os.kill(sleeper, signal.SIGKILL)
    os.waitpid(sleeper, 0)


def unlinked():
    descriptor = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"content")
    os.unlink("f")
    say("its links", lambda: os.fstat(descriptor).st_nlink)
    say("its content", lambda: os.pread(descriptor, 99, 0))
    say("growing", lambda: (os.ftruncate(descriptor, 1 << 20), os.fstat(descriptor).st_size)[1])
    say("its mode", lambda: (os.fchmod(descriptor, 0o600), oct(os.fstat(descriptor).st_mode))[1])
    say("again by /proc", lambda: os.pread(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY), 7, 0))
    home = os.getcwd()
    os.mkdir("d")
    os.chdir("d")
    os.rmdir("../d")
    say("creating in a removed directory", lambda: os.open("x", os.O_CREAT | os.O_WRONLY))
    say("making one in it", lambda: os.mkdir("x"))
    say("listing it", lambda: os.listdir("."))
    say("links of it", lambda: os.stat(".").st_nlink)
    say("its path", lambda: os.getcwd())
    os.chdir(home)


def times():
    def shown(path):
        found = os.lstat(path)
        return found.st_atime_ns, found.st_mtime_ns

    def moved(field, call, path="f"):
        os.utime(path, ns=(5, 5), follow_symlinks=False) if field != "st_ctime_ns" else None
        before = getattr(os.lstat(path), field)
        select.select([], [], [], 0.02)
        call()
        return getattr(os.lstat(path), field) != before

    make("f", b"x")
    for value in (0, 1, 123456789, 10**18 + 7, -1, -(10**9) - 3):
        say(f"{value} ns", lambda: (os.utime("f", ns=(value, value + 1)), shown("f"))[1])
    os.symlink("f", "s")
    say("of a link itself", lambda: (os.utime("s", ns=(7, 8), follow_symlinks=False), shown("s"))[1])
    now, omit = (1 << 30) - 1, (1 << 30) - 2
    utimensat = lambda one, other: checked(libc.utimensat(AT_FDCWD, b"f", struct.pack("qqqq", 3, one, 4, other), 0))
    os.utime("f", ns=(11, 12))
    say("both left out", lambda: (utimensat(omit, omit), shown("f"))[1])
    say("one left out", lambda: (utimensat(omit, 99), shown("f"))[1])
    say("now", lambda: (utimensat(now, omit), shown("f")[0] > 10**18)[1])
    say("too many nanoseconds", lambda: utimensat(10**9, 0))
    os.mkdir("d")
    for what, field, call, path in (
        ("mtime by a write", "st_mtime_ns", lambda: write_at("f", b"y"), "f"),
        ("mtime by an empty write", "st_mtime_ns", lambda: write_at("f", b""), "f"),
        ("mtime by chmod", "st_mtime_ns", lambda: os.chmod("f", 0o600), "f"),
        ("ctime by chmod", "st_ctime_ns", lambda: os.chmod("f", 0o600), "f"),
        ("ctime by a link", "st_ctime_ns", lambda: os.link("f", "f2"), "f"),
        ("ctime by a rename", "st_ctime_ns", lambda: os.rename("f2", "f3"), "f"),
        ("ctime by an unlink", "st_ctime_ns", lambda: os.unlink("f3"), "f"),
        ("mtime by truncating to the same", "st_mtime_ns", lambda: os.truncate("f", 1), "f"),
        ("mtime of a directory by create", "st_mtime_ns", lambda: make("d/x"), "d"),
        ("mtime of a directory by chmod in it", "st_mtime_ns", lambda: os.chmod("d/x", 0o600), "d"),
        ("mtime of a directory by rename in it", "st_mtime_ns", lambda: os.rename("d/x", "d/y"), "d"),
        ("mtime of a directory by unlink", "st_mtime_ns", lambda: os.unlink("d/y"), "d"),
        ("ctime by an attribute", "st_ctime_ns", lambda: os.setxattr("f", "user.a", b"1"), "f"),
        ("mtime by an attribute", "st_mtime_ns", lambda: os.setxattr("f", "user.a", b"2"), "f"),
    ):
        say(what, lambda: moved(field, call, path))


def special():
    os.mkfifo("fifo", 0o600)
    say("a fifo nobody reads", lambda: os.open("fifo", os.O_WRONLY | os.O_NONBLOCK))
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("fifo", os.O_WRONLY)
    say("through it", lambda: (os.write(writer, b"message"), os.read(reader, 99))[1])
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    say("a socket", lambda: (client.connect("socket"), client.send(b"x"), mode("socket"))[1:])
    say("opening it", lambda: os.open("socket", os.O_RDONLY))
    say("bound again", lambda: socket.socket(socket.AF_UNIX).bind("socket"))
    for what, kind in (("character", stat.S_IFCHR), ("block", stat.S_IFBLK)):
        os.mknod(what, 0o600 | kind, os.makedev(7, 300))
        say(what, lambda: (mode(what), os.major(os.stat(what).st_rdev), os.minor(os.stat(what).st_rdev)))
    say("a plain file by mknod", lambda: (os.mknod("plain", 0o640 | stat.S_IFREG), mode("plain"))[1])
    say("a directory by mknod", lambda: os.mknod("dir", 0o755 | stat.S_IFDIR))
    say("attributes of a fifo", lambda: os.setxattr("fifo", "user.x", b"1"))


def attributes():
    make("f")
    os.symlink("f", "s")
    setx = lambda name, value, how=0, path="f": os.setxattr(path, name, value, how, follow_symlinks=False)
    say("none", lambda: os.getxattr("f", "user.a"))
    say("replace none", lambda: setx("user.a", b"1", os.XATTR_REPLACE))
    say("create", lambda: setx("user.a", b"1", os.XATTR_CREATE))
    say("create again", lambda: setx("user.a", b"1", os.XATTR_CREATE))
    say("binary", lambda: (setx("user.b", bytes(range(256))), os.getxattr("f", "user.b") == bytes(range(256)))[1])
    say("empty", lambda: (setx("user.c", b""), os.getxattr("f", "user.c"))[1])
    say("trusted", lambda: (setx("trusted.t", b"t"), sorted(os.listxattr("f")))[1])
    say("trusted for a user", as_user(1000, lambda: (sorted(os.listxattr("f")))))
    say("reading it as a user", as_user(1000, lambda: os.getxattr("f", "trusted.t")))
    say("on a link", lambda: setx("user.a", b"1", 0, "s"))
    say("trusted on a link", lambda: setx("trusted.a", b"1", 0, "s"))
    say("without a name", lambda: setx("user.", b"1"))
    say("of no class", lambda: setx("odd.name", b"1"))
    say("a long name", lambda: setx("user." + "n" * 251, b"1"))
    say("a buffer too small", lambda: checked(libc.getxattr(b"f", b"user.b", ctypes.create_string_buffer(4), 4)))
    say("its size", lambda: checked(libc.getxattr(b"f", b"user.b", None, 0)))
    say("removed", lambda: (os.removexattr("f", "user.a"), sorted(os.listxattr("f")))[1])
    say("removed again", lambda: os.removexattr("f", "user.a"))
    say("written by others", as_user(1000, lambda: setx("user.x", b"1")))


def holes():
    block = 4096
    descriptor = os.open("f", os.O_CREAT | os.O_RDWR)
    os.pwrite(descriptor, b"x" * block, 8 * block)
    os.pwrite(descriptor, b"y" * block, 32 * block)
    os.ftruncate(descriptor, 64 * block)
    fallocate = lambda how, at, length: checked(libc.fallocate64(descriptor, how, ctypes.c_long(at), ctypes.c_long(length)))
    digest = lambda: [at for at in range(os.fstat(descriptor).st_size // block) if os.pread(descriptor, block, at * block).strip(b"\0")]
    for at in (0, 8 * block, 8 * block + 1, 9 * block, 33 * block, 64 * block):
        say(f"data from {at}", lambda: os.lseek(descriptor, at, os.SEEK_DATA))
        say(f"hole from {at}", lambda: os.lseek(descriptor, at, os.SEEK_HOLE))
    say("far away", lambda: (os.pwrite(descriptor, b"z", 5 << 40), os.fstat(descriptor).st_size, os.lseek(descriptor, 40 * block, os.SEEK_DATA)))
    os.ftruncate(descriptor, 64 * block)
    for what, how, at, length in (
        ("punch", 3, 8 * block, block),
        ("punch without keeping the size", 2, 0, block),
        ("zero", 0x10, 32 * block + 100, 200),
        ("zero behind the end", 0x10, 64 * block, block),
        ("zero behind the end, keeping the size", 0x11, 70 * block, block),
        ("allocate", 0, 64 * block, 4 * block),
        ("allocate behind the end, keeping the size", 1, 80 * block, block),
        ("nothing", 0, 0, 0),
        ("before the start", 0, -1, block),
        ("unknown", 0x1000, 0, block),
    ):
        say(what, lambda: (fallocate(how, at, length), os.fstat(descriptor).st_size // block, digest())[1:])
    say("on a reader", lambda: checked(libc.fallocate64(os.open("f", os.O_RDONLY), 0, ctypes.c_long(0), ctypes.c_long(9))))
    make("from", bytes(range(256)) * 64)
    source, target = os.open("from", os.O_RDONLY), os.open("to", os.O_CREAT | os.O_RDWR)
    say("copy of a range", lambda: (os.copy_file_range(source, target, 5000, 100, 7), read("to") == b"\0" * 7 + (bytes(range(256)) * 64)[100:5100]))
    say("copy past the end", lambda: os.copy_file_range(source, target, 100, 1 << 20, 0))
    say("copy to a reader", lambda: os.copy_file_range(target, source, 100, 0, 0))
    say("overlapping", lambda: os.copy_file_range(target, target, 100, 0, 50))
    say("sendfile", lambda: (os.sendfile(target, source, 0, 300), os.fstat(target).st_size))


def locks():
    make("f", b"0" * 100)
    one = os.open("f", os.O_RDWR)

    def lock(kind, start, length, command=fcntl.F_SETLK, descriptor=None):
        asked = struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0)
        descriptor = one if descriptor is None else descriptor
        found = struct.unpack("hhqqi", fcntl.fcntl(descriptor, command, asked))
        return found[:4] if command in (fcntl.F_GETLK, 36) else "done"

    def other(kind, start, length, command=fcntl.F_SETLK):
        return within(lambda: lock(kind, start, length, command, os.open("f", os.O_RDWR)))

    say("exclusive", lambda: lock(fcntl.F_WRLCK, 10, 20))
    say("another process, inside", lambda: other(fcntl.F_WRLCK, 15, 1))
    say("another process, shared", lambda: other(fcntl.F_RDLCK, 29, 10))
    say("another process, beside", lambda: other(fcntl.F_WRLCK, 30, 10))
    say("who holds it", lambda: other(fcntl.F_WRLCK, 0, 0, fcntl.F_GETLK))
    say("the same process, again", lambda: lock(fcntl.F_RDLCK, 15, 5))
    say("shared by another now", lambda: other(fcntl.F_RDLCK, 15, 5))
    say("freed in the middle", lambda: lock(fcntl.F_UNLCK, 15, 5))
    say("taken there", lambda: other(fcntl.F_WRLCK, 15, 5))
    say("not beside it", lambda: other(fcntl.F_WRLCK, 20, 1))
    flock = lambda how, descriptor: fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    say("flock beside record locks", lambda: within(lambda: flock(fcntl.LOCK_EX, os.open("f", os.O_RDWR))))
    os.close(os.open("f", os.O_RDONLY))
    say("after any descriptor was closed", lambda: other(fcntl.F_WRLCK, 0, 0))
    held = os.open("f", os.O_RDWR)
    flock(fcntl.LOCK_EX, held)
    say("flock of another descriptor", lambda: flock(fcntl.LOCK_SH, one))
    say("flock inherited", lambda: within(lambda: flock(fcntl.LOCK_EX, held)))
    say("record locks beside flock", lambda: other(fcntl.F_WRLCK, 0, 0))
    flock(fcntl.LOCK_SH, held)
    say("shared", lambda: flock(fcntl.LOCK_SH, one))
    say("not to exclusive", lambda: flock(fcntl.LOCK_EX, one))
    os.close(held)
    say("exclusive when the other is closed", lambda: flock(fcntl.LOCK_EX, one))
    flock(fcntl.LOCK_UN, one)
    two = os.open("f", os.O_RDWR)
    say("of an open file", lambda: lock(fcntl.F_WRLCK, 0, 50, 37))
    say("against another open file of the process", lambda: lock(fcntl.F_WRLCK, 0, 50, 37, two))
    say("against a record lock", lambda: lock(fcntl.F_WRLCK, 0, 50, fcntl.F_SETLK, two))
    say("who holds it, of open files", lambda: lock(fcntl.F_WRLCK, 0, 0, 36, two))
    lock(fcntl.F_UNLCK, 0, 0, 37)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        lock(fcntl.F_WRLCK, 0, 0, fcntl.F_SETLK, two)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
    os.read(ready[0], 1)
    say("held by a child", lambda: lock(fcntl.F_WRLCK, 0, 0))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    say("released by its death", lambda: lock(fcntl.F_WRLCK, 0, 0))
    reader = os.open("f", os.O_RDONLY)
    say("exclusive on a reader", lambda: lock(fcntl.F_WRLCK, 0, 0, fcntl.F_SETLK, reader))


def mappings():
    make("f", b"0" * 5000)
    descriptor = os.open("f", os.O_RDWR)
    shared = mmap.mmap(descriptor, 5000)
    shared[10:14] = b"MARK"
    say("read sees it", lambda: os.pread(descriptor, 4, 10))
    os.pwrite(descriptor, b"BACK", 20)
    say("it sees a write", lambda: bytes(shared[20:24]))
    say("synced", lambda: shared.flush())
    private = mmap.mmap(descriptor, 5000, mmap.MAP_PRIVATE)
    private[0:4] = b"MINE"
    say("private stays so", lambda: os.pread(descriptor, 4, 0))
    two_pages = mmap.mmap(-1, 8192)
    two_pages.close()
    say("behind the end of the file", lambda: within(lambda: (os.ftruncate(descriptor, 100), shared[4999])))
    os.ftruncate(descriptor, 5000)
    say("zeros after it grew again", lambda: os.pread(descriptor, 4, 4000))
    say("by a reader", lambda: mmap.mmap(os.open("f", os.O_RDONLY), 5000))
    os.unlink("f")
    shared[0:4] = b"GONE"
    say("of a removed file", lambda: os.pread(descriptor, 4, 0))


def directories():
    os.mkdir("d")
    count = 3000
    for number in range(count):
        os.close(os.open(f"d/name-{number}", os.O_CREAT | os.O_WRONLY))
    say("all are listed", lambda: len(set(os.listdir("d"))))
    stream = libc.opendir(b"d")

    def entry():
        found = libc.readdir64(stream)
        # struct dirent: inode 8, offset 8, length 2, type 1, name.
        return ctypes.string_at(found + 19).decode() if found else None

    for _ in range(100):
        entry()
    place = libc.telldir(stream)
    following = [entry() for _ in range(50)]
    while entry():
        pass
    libc.seekdir(stream, place)
    say("back to a place", lambda: [entry() for _ in range(50)] == following)
    for name in following:
        if name not in (".", ".."):
            os.unlink(f"d/{name}")
    libc.seekdir(stream, place)
    say("the place when what followed is gone", lambda: entry() not in following)
    libc.closedir(stream)
    seen = []
    with os.scandir("d") as entries:
        for found in entries:
            seen.append(found.name)
            os.unlink(f"d/{found.name}")
            make("d/new") if len(seen) % 500 == 0 else None
    rest = [name for name in seen if name != "new"]
    say("each once while all are removed", lambda: (len(rest) == len(set(rest)), len(set(rest)) >= count - 50, set(os.listdir("d")) <= {"new"}))
    home = os.getcwd()
    for _ in range(120):
        os.mkdir("directory-with-a-long-name")
        os.chdir("directory-with-a-long-name")
    say("deep down", lambda: (make("file"), os.getcwd().count("/directory"))[1] if len(os.getcwd()) < 4096 else "deep")
    os.chdir(home)
    say("all of it removed", lambda: shutil.rmtree("directory-with-a-long-name"))


umask = os.umask(0o022)
os.chmod(sys.argv[1], 0o777)
for chapter in (
    links,
    renames,
    sticky,
    set_id_bits,
    permissions,
    names,
    opening,
    unlinked,
    times,
    special,
    attributes,
    holes,
    locks,
    mappings,
    directories,
):
    folder = os.path.join(sys.argv[1], chapter.__name__)
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    os.chdir(folder)
    chapter()
    os.chdir("/")
