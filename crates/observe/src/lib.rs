//! lauf-observe
