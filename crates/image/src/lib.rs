//! lauf-image
