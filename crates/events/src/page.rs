//! Lists in pages.

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins; empty on the last.
    pub next: String,
}

/// How many are on a page that was asked for with `size`, 0 being as many as may be.
pub(crate) fn page_size(size: usize, most: usize) -> usize {
    match size {
        0 => most,
        size => size.min(most),
    }
}

impl<T: Clone> Page<T> {
    /// Of things in the order of their ids, the first `size` after the token, which is the id of the last one
    /// before.
    pub(crate) fn of<'a>(
        all: impl Iterator<Item = &'a T>,
        id: impl Fn(&T) -> &String,
        size: usize,
        token: &str,
    ) -> Self
    where
        T: 'a,
    {
        let mut found = all.filter(|one| token.is_empty() || **id(one) > *token);
        let items: Vec<T> = found.by_ref().take(size).cloned().collect();
        let next = match (found.next(), items.last()) {
            (Some(_), Some(last)) => id(last).clone(),
            _ => String::new(),
        };
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_the_last_says_so() {
        let all = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let page = |size, token: &str| {
            let page = Page::of(all.iter(), |id| id, size, token);
            (page.items.concat(), page.next)
        };
        assert_eq!(page(2, ""), ("ab".to_owned(), "b".to_owned()));
        assert_eq!(page(2, "b"), ("cd".to_owned(), "d".to_owned()));
        assert_eq!(page(2, "d"), ("e".to_owned(), String::new()));
        assert_eq!(page(5, ""), ("abcde".to_owned(), String::new()));
        assert_eq!(page(2, "e"), (String::new(), String::new()));
        assert_eq!(
            (page_size(0, 7), page_size(3, 7), page_size(9, 7)),
            (7, 3, 7)
        );
    }
}
