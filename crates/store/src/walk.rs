//! Reading a long list one object after another.

use std::vec;

use crate::{ListQuery, Object, ReadError, Store, Version};

/// The objects of a list, read page by page. Each page is a snapshot of its own moment: what is
/// written meanwhile after the place reached is seen.
pub struct Walk<'a> {
    store: &'a Store,
    query: ListQuery,
    page: vec::IntoIter<Object>,
    more: bool,
    version: Option<Version>,
}

impl Store {
    /// All objects that a query asks for, its limit being that of one page.
    #[must_use]
    pub fn walk(&self, query: ListQuery) -> Walk<'_> {
        Walk {
            store: self,
            query,
            page: Vec::new().into_iter(),
            more: true,
            version: None,
        }
    }
}

impl Walk<'_> {
    /// The next object; `None` after the last.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the disk or the database fails.
    pub async fn next(&mut self) -> Result<Option<Object>, ReadError> {
        if self.page.as_slice().is_empty() && self.more {
            let page = self.store.list(&self.query).await?;
            self.version.get_or_insert(page.version);
            let last = page.objects.last();
            self.more = page.more && last.is_some();
            self.query.after = last.map(|o| (o.key.scope.clone(), o.key.name.clone()));
            self.page = page.objects.into_iter();
        }
        Ok(self.page.next())
    }

    /// Whether the object that was handed out was the last.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.page.as_slice().is_empty() && !self.more
    }

    /// The version of the first page: a watch from there misses nothing of what came between the
    /// pages, and may tell again what they show. Zero before the first object was asked for.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Txn};

    #[tokio::test]
    async fn every_object_once_whatever_the_size_of_a_page() {
        let store = Store::in_memory().unwrap();
        let names = ["a", "b", "c", "d"];
        let put = |txn: Txn, name: &&str| txn.put(Key::new("K", "s", *name), "");
        let version = store
            .write(names.iter().fold(Txn::new(), put))
            .await
            .unwrap();
        for limit in 1..=5 {
            let mut walk = store.walk(ListQuery {
                limit,
                ..ListQuery::scope("K", "s")
            });
            for (i, name) in names.iter().enumerate() {
                assert_eq!(walk.next().await.unwrap().unwrap().key.name, *name);
                assert_eq!(walk.is_over(), i + 1 == names.len(), "limit {limit}");
            }
            assert_eq!(walk.next().await.unwrap(), None);
            assert_eq!(walk.version(), version);
        }
    }
}
