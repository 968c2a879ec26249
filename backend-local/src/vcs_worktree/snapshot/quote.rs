//! Names in double quotes, as git prints unusual paths: what is no printable ASCII is escaped, so a line holds any name.

/// Appends `bytes` in quotes.
pub(super) fn quote(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in bytes {
        match *byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b' '..=b'~' => out.push(*byte),
            other => {
                let digit = |shift: u8| b'0' + ((other >> shift) & 7);
                out.extend_from_slice(&[b'\\', digit(6), digit(3), digit(0)]);
            }
        }
    }
    out.push(b'"');
}

/// Reads a quoted name at the beginning of `text`; returns it with what follows it.
pub(super) fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut bytes = Vec::new();
    loop {
        rest = match rest {
            [b'"', rest @ ..] => return Some((bytes, rest)),
            [b'\\', escape @ (b'"' | b'\\'), rest @ ..] => {
                bytes.push(*escape);
                rest
            }
            [b'\\', b'n', rest @ ..] => {
                bytes.push(b'\n');
                rest
            }
            [b'\\', b't', rest @ ..] => {
                bytes.push(b'\t');
                rest
            }
            [b'\\', b'r', rest @ ..] => {
                bytes.push(b'\r');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [byte @ b' '..=b'~', rest @ ..] if *byte != b'\\' => {
                bytes.push(*byte);
                rest
            }
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_and_stays_on_its_line() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        quote(&mut text, &all);
        text.extend_from_slice(b" rest");
        assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)));
        assert_eq!(unquote(&text), Some((all, b" rest".as_slice())));
    }

    #[test]
    fn what_is_no_quoted_name_is_none() {
        for text in ["", "x", "\"", "\"a", "\"\\\"", "\"\\8\"", "\"\\777\"", "\"\n\"", "\"\\x\""] {
            assert_eq!(unquote(text.as_bytes()), None, "{text:?}");
        }
    }
}
