//! A Unix socket: its file made, taken over from a process that died, and removed.
//!
//! The file outlives whoever made it, and a file that is there cannot be bound to. So it is
//! removed, but only if nobody answers on it, and under a lock on its folder: of two processes
//! that start at a time, the second would otherwise remove what the first has just made.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait to be accepted; the system allows fewer if it is set so.
pub(crate) const QUEUE: i32 = 4096;

/// Makes the socket with these permissions. Blocks on the disk: for the start of a process.
pub(crate) fn open(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let _lock = lock_folder(path)?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Nobody can connect before it listens, so nobody does who is not allowed to.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(QUEUE)?;
    socket.set_nonblocking(true)?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// Held by whoever makes or removes a socket in the folder; it ends with the file.
fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = File::open(folder)?;
    folder.lock()?;
    Ok(folder)
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let asker = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where the queue is full it would wait, and somebody is there.
    asker.set_nonblocking(true)?;
    match asker.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The file of a socket; removed when it is dropped, unless it is another one's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and number: what tells it from another file of that name.
    is: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), is: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Without the lock it is left: the next process finds that nobody answers.
        let removed = lock_folder(&self.path).and_then(|_lock| match identity(&self.path) {
            Ok(found) if found == self.is => fs::remove_file(&self.path),
            _ => Ok(()),
        });
        if let Err(error) = removed {
            tracing::warn!(%error, path = %self.path.display(), "the file of a socket is left");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
