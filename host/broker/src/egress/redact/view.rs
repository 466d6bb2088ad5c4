//! Text as another program would read it: the escapes of URLs, JSON and XML undone, each byte with
//! the place where it stood. Undoes all three at once, for nobody knows which one a text is in.

/// Text with its escapes undone.
pub struct View {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where each byte began in the text that was first looked at, and where the last one ended.
    places: Vec<usize>,
}

impl View {
    /// The text as it is.
    pub fn plain(text: &[u8]) -> Self {
        Self { bytes: text.to_vec(), places: (0..=text.len()).collect() }
    }

    /// This view with one more layer of escapes undone; `None` if it has none.
    pub fn unescaped(&self) -> Option<Self> {
        let mut view = Self { bytes: Vec::with_capacity(self.bytes.len()), places: Vec::new() };
        let mut rest = self.bytes.as_slice();
        let mut at = 0;
        while let Some((first, tail)) = rest.split_first() {
            let place = self.place(at);
            let (meaning, length) = escape(rest).unwrap_or((Meaning::Byte(*first), 1));
            view.push(meaning, place);
            at += length;
            rest = rest.get(length..).unwrap_or(tail);
        }
        view.places.push(self.place(at));
        (view.bytes.len() < self.bytes.len()).then_some(view)
    }

    /// Where in the first text the bytes from `start` to `end` stood.
    pub fn span(&self, start: usize, end: usize) -> (usize, usize) {
        (self.place(start), self.place(end))
    }

    fn place(&self, at: usize) -> usize {
        self.places.get(at).or(self.places.last()).copied().unwrap_or_default()
    }

    fn push(&mut self, meaning: Meaning, place: usize) {
        let mut buffer = [0; 4];
        let bytes: &[u8] = match meaning {
            Meaning::Byte(byte) => &[byte],
            Meaning::Char(character) => character.encode_utf8(&mut buffer).as_bytes(),
        };
        self.bytes.extend_from_slice(bytes);
        self.places.extend(bytes.iter().map(|_| place));
    }
}

impl Drop for View {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.bytes);
    }
}

#[derive(Clone, Copy)]
enum Meaning {
    Byte(u8),
    Char(char),
}

/// The escape that `text` begins with, and its length.
fn escape(text: &[u8]) -> Option<(Meaning, usize)> {
    match text {
        [b'%', high, low, ..] => Some((Meaning::Byte(byte(*high, *low)?), 3)),
        [b'\\', b'x', high, low, ..] => Some((Meaning::Byte(byte(*high, *low)?), 4)),
        [b'\\', b'u', a, b, c, d, ..] => {
            let code = u32::from(byte(*a, *b)?) << 8 | u32::from(byte(*c, *d)?);
            Some((Meaning::Char(char::from_u32(code).unwrap_or('\u{fffd}')), 6))
        }
        [b'\\', letter, ..] => Some((Meaning::Byte(short_escape(*letter)?), 2)),
        [b'&', rest @ ..] => {
            let end = rest.iter().take(ENTITY_BYTES_MAX).position(|byte| *byte == b';')?;
            let name = std::str::from_utf8(rest.get(..end)?).ok()?;
            Some((Meaning::Char(entity(name)?), end + 2))
        }
        _ => None,
    }
}

fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

const fn short_escape(letter: u8) -> Option<u8> {
    Some(match letter {
        b'"' | b'\'' | b'\\' | b'/' => letter,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

fn entity(name: &str) -> Option<char> {
    let number = |digits: &str, radix| char::from_u32(u32::from_str_radix(digits, radix).ok()?);
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let digits = name.strip_prefix('#')?;
            match digits.strip_prefix(['x', 'X']) {
                Some(digits) => number(digits, 16),
                None => number(digits, 10),
            }
        }
    }
}

/// `#x10FFFF;` with some zeros in front.
const ENTITY_BYTES_MAX: usize = 12;
