//! The list of models, a page at a time.

use serde::Serialize;

use super::params::Params;
use crate::failure::Failure;

const LARGEST_PAGE: usize = 100;

/// Which part of the list a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    offset: usize,
    limit: usize,
}

impl Page {
    /// From `limit` and `next_page_token`; what makes no sense there is replaced by the default.
    pub(super) fn of(params: &Params) -> Result<Self, Failure> {
        // A page of none would have a token that leads to itself.
        let limit = params.count("limit")?.map_or(0, |limit| limit as usize);
        let limit = if (1..=LARGEST_PAGE).contains(&limit) { limit } else { LARGEST_PAGE };
        let offset = params.count("next_page_token")?.map_or(0, |offset| offset as usize);
        Ok(Self { offset, limit })
    }

    /// The entries of the page, and where the next one begins. TorchServe also promises a next page after one that was exactly the
    /// last, and clients page until the token is gone, so they see one empty page at the end.
    fn cut<T>(self, all: impl ExactSizeIterator<Item = T>) -> (Vec<T>, Option<String>) {
        let end = self.offset + self.limit;
        let next = (end <= all.len()).then(|| end.to_string());
        (all.skip(self.offset).take(self.limit).collect(), next)
    }
}

/// The response.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
    models: Vec<Entry>,
}

/// One model: its name and where it came from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) model_name: String,
    pub(super) model_url: String,
}

impl Listing {
    /// The `page` of `all` models, which are sorted by name.
    pub(super) fn new(page: Page, all: impl ExactSizeIterator<Item = Entry>) -> Self {
        let (models, next_page_token) = page.cut(all);
        Self { next_page_token, models }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn page(query: &str) -> Page {
        let request = Request::get(format!("/models?{query}")).body(()).unwrap();
        Page::of(&Params::of_query(&request.into_parts().0)).unwrap()
    }

    #[test]
    fn limits_are_clamped_and_nonsense_is_the_default() {
        for (query, offset, limit) in [
            ("", 0, 100),
            ("limit=2&next_page_token=4", 4, 2),
            ("limit=0", 0, 100),
            ("limit=101", 0, 100),
            ("limit=-1", 0, 100),
            ("limit=many&next_page_token=far", 0, 100),
            ("next_page_token=-3", 0, 100),
        ] {
            assert_eq!(page(query), Page { offset, limit }, "{query}");
        }
    }

    #[test]
    fn a_page_that_is_exactly_the_last_still_has_a_token() {
        let cut = |query: &str| page(query).cut(0..4);
        assert_eq!(cut("limit=3"), (vec![0, 1, 2], Some("3".into())));
        assert_eq!(cut("limit=3&next_page_token=3"), (vec![3], None));
        assert_eq!(cut("limit=4"), (vec![0, 1, 2, 3], Some("4".into())));
        assert_eq!(cut("limit=2&next_page_token=4"), (vec![], None));
        assert_eq!(cut("next_page_token=99"), (vec![], None));
        assert_eq!(cut(""), (vec![0, 1, 2, 3], None));
    }
}
