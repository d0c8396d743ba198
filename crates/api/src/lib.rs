//! lauf-api
