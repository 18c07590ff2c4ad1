//! Regular expressions over columns of texts.

use std::sync::{Mutex, TryLockError};

use arrow::array::{Array, AsArray};
use arrow::buffer::BooleanBuffer;
use regex_automata::Input;
use regex_automata::meta::{Cache, Config, Regex};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use crate::values::test_texts;

/// A compiled automaton may take so many bytes: what the `regex` crate allows.
const SIZE: usize = 10 << 20;

/// A pattern, ready to run over columns. A clone has memory of its own, so that threads do not wait for each other.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    cache: Mutex<Box<Cache>>,
    /// Where every text that matches is made of some characters and of nothing else.
    characters: Option<Characters>,
}

impl Clone for Pattern {
    fn clone(&self) -> Self {
        let cache = Mutex::new(Box::new(self.regex.create_cache()));
        Self { regex: self.regex.clone(), cache, characters: self.characters.clone() }
    }
}

impl Pattern {
    /// Reads a pattern in the syntax of the `regex` crate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        // The `regex` crate's errors show the place in the pattern.
        let hir = regex_syntax::parse(pattern).map_err(|error| error.to_string())?;
        let config = Config::new().nfa_size_limit(Some(SIZE));
        let regex = Regex::builder().configure(config).build_from_hir(&hir).map_err(|error| error.to_string())?;
        let cache = Mutex::new(Box::new(regex.create_cache()));
        Ok(Self { regex, cache, characters: Characters::of(&hir) })
    }

    /// For each row, whether the text does not match; false for nulls. `None` where the array holds no texts.
    pub(crate) fn misses(&self, array: &dyn Array) -> Option<BooleanBuffer> {
        if let Some(characters) = &self.characters {
            return characters.misses(array);
        }
        let search = |cache: &mut Cache| {
            test_texts(array, |text| {
                let input = Input::new(text).earliest(true);
                self.regex.search_half_with(cache, &input).is_none()
            })
        };
        match self.cache.try_lock() {
            Ok(mut cache) => search(&mut cache),
            Err(TryLockError::Poisoned(cache)) => search(&mut cache.into_inner()),
            // Who shares a pattern with a thread that uses it does not wait.
            Err(TryLockError::WouldBlock) => search(&mut self.regex.create_cache()),
        }
    }
}

/// A pattern such as `^[^0-9]+$`: a text matches where all its characters are of one class and it is as long as it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Characters {
    /// Ranges of bytes that no text that matches has.
    others: Vec<(u8, u8)>,
    least: usize,
    most: usize,
}

/// Where bytes of more ranges are forbidden the automaton is no slower.
const RANGES: usize = 8;
/// Bytes that are looked at before it is asked whether one of them is forbidden.
const STRETCH: usize = 4096;

impl Characters {
    /// Reads a pattern of that form. Beyond ASCII a class has all characters or none, and where it has them all no
    /// length counts: there characters are not bytes.
    fn of(hir: &Hir) -> Option<Self> {
        let HirKind::Concat(parts) = plain(hir).kind() else { return None };
        let [start, repeated, end] = parts.as_slice() else { return None };
        if !is_look(start, Look::Start) || !is_look(end, Look::End) {
            return None;
        }
        let HirKind::Repetition(repetition) = plain(repeated).kind() else { return None };
        let HirKind::Class(Class::Unicode(class)) = plain(&repetition.sub).kind() else { return None };
        let (mut next, mut others, mut beyond) = (0_u32, Vec::new(), false);
        for range in class.ranges() {
            let (first, last) = (u32::from(range.start()), u32::from(range.end()));
            if first > next.min(0x80) {
                others.push((next as u8, (first.min(0x80) - 1) as u8));
            }
            if last >= 0x80 {
                beyond = first <= 0x80 && last == u32::from(char::MAX);
                if !beyond {
                    return None;
                }
            }
            next = last + 1;
        }
        if next < 0x80 {
            others.push((next as u8, 0x7f));
        }
        if !beyond {
            others.push((0x80, 0xff));
        }
        let (least, most) = (repetition.min as usize, repetition.max.map_or(usize::MAX, |most| most as usize));
        let countable = !beyond || (least <= 1 && most == usize::MAX);
        (countable && others.len() <= RANGES).then_some(Self { others, least, most })
    }

    fn is_clean(&self, bytes: &[u8]) -> bool {
        !bytes.chunks(STRETCH).any(|bytes| {
            // Without a branch in it the inner loop runs over many bytes at once.
            let any = |(first, last): &(u8, u8)| {
                bytes.iter().fold(false, |any, byte| any | (byte.wrapping_sub(*first) <= last - first))
            };
            self.others.iter().any(any)
        })
    }

    fn misses(&self, array: &dyn Array) -> Option<BooleanBuffer> {
        let fits = |length: usize| (self.least..=self.most).contains(&length);
        if let Some(texts) = array.as_string_opt::<i32>() {
            let offsets = texts.value_offsets();
            let all = &texts.value_data()[offsets[0] as usize..offsets[texts.len()] as usize];
            if self.is_clean(all) {
                return test_texts(array, |text| !fits(text.len()));
            }
        }
        test_texts(array, |text| !fits(text.len()) || !self.is_clean(text.as_bytes()))
    }
}

/// What stands in the groups around an expression.
fn plain(hir: &Hir) -> &Hir {
    match hir.kind() {
        HirKind::Capture(capture) => plain(&capture.sub),
        _ => hir,
    }
}

fn is_look(hir: &Hir, look: Look) -> bool {
    matches!(hir.kind(), HirKind::Look(found) if *found == look)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use proptest::prelude::*;

    use super::*;

    fn characters(pattern: &str) -> Option<Characters> {
        Pattern::new(pattern).expect("a pattern").characters
    }

    #[test]
    fn patterns_of_one_class_are_known() {
        let known = |others: &[(u8, u8)], least, most| Some(Characters { others: others.to_vec(), least, most });
        assert_eq!(characters("^[^0-9]+$"), known(&[(b'0', b'9')], 1, usize::MAX));
        assert_eq!(characters("^([^0-9]*)$"), known(&[(b'0', b'9')], 0, usize::MAX));
        assert_eq!(characters("^[A-Z]{3}$"), known(&[(0, b'A' - 1), (b'Z' + 1, 0x7f), (0x80, 0xff)], 3, 3));
        assert_eq!(characters(r"^[\x00-\x7f]{2,}$"), known(&[(0x80, 0xff)], 2, usize::MAX));
        // A character beyond ASCII is several bytes; a class may have some of them; lines end within a text.
        for pattern in
            ["^[^0-9]{2}$", r"^\d+$", r"^\w+$", "^[a-zä]+$", "[a-z]+", "^[a-z]+", "(?m)^[a-z]+$", "^a[a-z]+$", "^$"]
        {
            assert_eq!(characters(pattern), None, "{pattern}");
        }
        assert!(Pattern::new("(").expect_err("refused").contains("unclosed group"));
    }

    proptest! {
        #[test]
        fn what_misses_is_what_the_regex_crate_says(
            pattern in prop::sample::select(vec![
                "^[^0-9]+$", "^[^0-9]*$", "^[A-Z]{3}$", "^[a-z]{0,2}$", "^[ab]?$", r"^[\x00-\x7f]+$", "^[^a]+$", "^.+$", "(?s)^.+$",
                "^[ -~]*$", "[0-9]", "^a|b$", r"^\p{Lu}+$", "^(?i)[abk]+$", r"^[^\x{80}-\x{10FFFF}]+$", "^[^a-zà]+$",
            ]),
            texts in prop::collection::vec(prop::option::of("[abAZ09 ä\u{212a}\n]{0,4}"), 0..20),
            start in 0_usize..5,
        ) {
            let array = StringArray::from(texts);
            let array = array.slice(start.min(array.len()), array.len() - start.min(array.len()));
            let known = regex::Regex::new(pattern).expect("a pattern");
            let expected: Vec<bool> = array.iter().map(|text| text.is_some_and(|text| !known.is_match(text))).collect();
            let misses = Pattern::new(pattern).expect("a pattern").clone().misses(&array).expect("texts");
            prop_assert_eq!(misses.iter().collect::<Vec<_>>(), expected, "{}", pattern);
        }
    }
}
