//! lauf-scale
