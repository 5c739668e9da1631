//! Places in a script, as people count: lines and columns from 1, in characters.

use std::fmt;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    /// The place of the character with this index, from 0; behind the end: that of the end. A line ends in LF or CR LF.
    pub fn of(text: &str, character: usize) -> Place {
        let mut place = Place { line: 1, column: 1 };
        for c in text.chars().take(character) {
            if c == '\n' {
                place.line += 1;
                place.column = 1;
            } else {
                place.column += 1;
            }
        }
        place
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_are_counted_not_bytes() {
        let text = "äöü\r\nx – y\n\nz";
        let at = |c: char| Place::of(text, text.chars().position(|x| x == c).unwrap());
        assert_eq!(at('ü').to_string(), "line 1, column 3");
        assert_eq!(at('x').to_string(), "line 2, column 1");
        assert_eq!(at('y').to_string(), "line 2, column 5");
        assert_eq!(at('z').to_string(), "line 4, column 1");
        assert_eq!(Place::of(text, 1000).to_string(), "line 4, column 2");
        assert_eq!(Place::of("", 0).to_string(), "line 1, column 1");
    }

    proptest! {
        #[test]
        fn the_character_stands_there(text in "[aé\\n\\r]{1,40}", pick in any::<prop::sample::Index>()) {
            let characters: Vec<char> = text.chars().collect();
            let index = pick.index(characters.len());
            let place = Place::of(&text, index);
            let line: Vec<char> = text.split('\n').nth(place.line - 1).unwrap().chars().chain(['\n']).collect();
            prop_assert_eq!(line[place.column - 1], characters[index]);
        }
    }
}
