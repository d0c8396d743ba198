//! Unfinished blob uploads: the distribution specification's upload sessions.
//!
//! An upload is a folder with the repository's name and the bytes so far. Its running hash is kept in
//! memory and made again from the file after a restart, so a client may go on where it was.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::error::{ImageError, IoContext};
use crate::store::{BlobWriter, Store, age, random_id};

#[derive(Default)]
pub(crate) struct Uploads {
    open: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<BlobWriter>>>;

/// An upload that this caller alone may go on with.
pub(crate) struct Session {
    id: String,
    guard: OwnedMutexGuard<Option<BlobWriter>>,
    /// Never written: the guard always holds a writer while a session exists.
    dir: PathBuf,
}

impl Deref for Session {
    type Target = BlobWriter;
    #[expect(clippy::expect_used, reason = "a session is only made around a writer")]
    fn deref(&self) -> &BlobWriter {
        self.guard.as_ref().expect("a session holds a writer")
    }
}

impl DerefMut for Session {
    #[expect(clippy::expect_used, reason = "a session is only made around a writer")]
    fn deref_mut(&mut self) -> &mut BlobWriter {
        self.guard.as_mut().expect("a session holds a writer")
    }
}

impl Session {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Uploads {
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<String, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload; `None` when too many are open. Blocks.
    pub(crate) fn begin(
        &self,
        store: &Store,
        repo: &str,
        max: usize,
    ) -> Result<Option<String>, ImageError> {
        let id = random_id();
        {
            let mut slots = self.slots();
            if slots.len() >= max {
                return Ok(None);
            }
            slots.insert(id.clone(), Slot::default());
        }
        let dir = store.uploads_dir().join(&id);
        let made = std::fs::create_dir(&dir)
            .and_then(|()| std::fs::write(dir.join("repo"), repo))
            .and_then(|()| BlobWriter::persistent(dir.join("data")))
            .doing("create", &dir);
        match made {
            Ok(writer) => {
                if let Some(slot) = self.slots().get(&id).cloned()
                    && let Ok(mut guard) = slot.try_lock()
                {
                    *guard = Some(writer);
                }
                Ok(Some(id))
            }
            Err(error) => {
                self.slots().remove(&id);
                Err(error)
            }
        }
    }

    /// The upload of that name in that repository, once nobody else is writing to it.
    pub(crate) async fn take(
        &self,
        store: &Arc<Store>,
        repo: &str,
        id: &str,
    ) -> Result<Option<Session>, ImageError> {
        if !is_id(id) {
            return Ok(None);
        }
        let dir = store.uploads_dir().join(id);
        let (at, want) = (dir.clone(), repo.to_owned());
        let ours = crate::store::blocking(move || {
            std::fs::read_to_string(at.join("repo")).is_ok_and(|found| found == want)
        })
        .await?;
        if !ours {
            return Ok(None);
        }
        let slot = self.slots().entry(id.to_owned()).or_default().clone();
        let mut guard = slot.lock_owned().await;
        if guard.is_none() {
            // After a restart; or it was finished while we waited.
            let data = dir.join("data");
            match crate::store::blocking(move || BlobWriter::resume(data)).await? {
                Ok(writer) => *guard = Some(writer),
                Err(_) => {
                    self.slots().remove(id);
                    return Ok(None);
                }
            }
        }
        Ok(Some(Session {
            id: id.to_owned(),
            guard,
            dir,
        }))
    }

    /// Ends the upload and hands over its content; the folder goes away. Blocks.
    pub(crate) fn finish(
        &self,
        store: &Store,
        mut session: Session,
    ) -> Result<BlobWriter, ImageError> {
        let mut writer = session
            .guard
            .take()
            .ok_or_else(|| ImageError::storage("finish an upload", "it is finished already"))?;
        // Out of the session's folder first: from here on the file is an ordinary temporary one.
        let tmp = store.tmp_path();
        writer.move_to(tmp).doing("move", &session.dir)?;
        self.forget(session);
        Ok(writer)
    }

    /// Throws the upload away. Blocks.
    pub(crate) fn forget(&self, session: Session) {
        let _ = std::fs::remove_dir_all(&session.dir);
        self.slots().remove(&session.id);
    }

    /// Throws away uploads that nobody went on with for `idle`. Blocks.
    pub(crate) fn expire(&self, store: &Store, idle: Duration) -> u64 {
        let mut gone = 0;
        for entry in std::fs::read_dir(store.uploads_dir())
            .into_iter()
            .flatten()
            .flatten()
        {
            let data = entry.path().join("data");
            let stale = std::fs::metadata(&data)
                .or_else(|_| entry.metadata())
                .is_ok_and(|meta| age(&meta) >= idle);
            if !stale {
                continue;
            }
            let id = entry.file_name().to_string_lossy().into_owned();
            let slot = self.slots().get(&id).cloned();
            // Someone is writing right now: not stale after all.
            let guard = match &slot {
                Some(slot) => match slot.try_lock() {
                    Ok(guard) => Some(guard),
                    Err(_) => continue,
                },
                None => None,
            };
            if std::fs::remove_dir_all(entry.path()).is_ok() {
                gone += 1;
            }
            if let Some(mut guard) = guard {
                *guard = None;
            }
            self.slots().remove(&id);
        }
        gone
    }
}
