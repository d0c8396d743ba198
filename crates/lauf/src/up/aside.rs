//! Files that are written whole.

use std::fs;
use std::io;
use std::path::Path;

/// Writes a file aside and renames it, so that readers, and a kill in the middle, find the old text or the new one.
pub(super) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut aside = file.as_os_str().to_owned();
    aside.push(".new");
    fs::write(&aside, text)?;
    fs::rename(&aside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_text_is_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spool.position");
        for text in ["old and long", "new"] {
            replace(&file, text).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
