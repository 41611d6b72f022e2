//! One process a data directory.
//!
//! The lock is the kernel's, so it ends with the process that holds it, however that ends;
//! the number in the file only serves the message.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::error::{OpenError, at_opening};

/// The right to use a data directory, until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    file: File,
}

impl DataLock {
    /// Takes a data directory, which is made if missing.
    ///
    /// # Errors
    /// [`OpenError::Held`] if another process has it.
    pub fn acquire(dir: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(dir).map_err(at_opening(dir))?;
        let path = dir.join("LOCK");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(at_opening(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = file.read_to_string(&mut holder);
                let pid = read.ok().and_then(|_| holder.trim().parse().ok());
                return Err(OpenError::Held { dir: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
        let named = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        named.map_err(at_opening(&path))?;
        Ok(Self { file })
    }
}

impl Drop for DataLock {
    fn drop(&mut self) {
        // Closing alone would not do: a child process that is just being started has a copy of
        // the file until it runs its own program. An error leaves the lock to the kernel.
        let _ = self.file.unlock();
    }
}
