//! Writes values as `cbor2.dumps(value, canonical=True)` does (RFC 8949, section 4.2): the hash input of vLLM's
//! `sha256_cbor` and `xxhash_cbor`. Unlike pickle, it knows no object identity.

use super::value::Value;

/// Replaces `out` by the CBOR of `value`.
pub(super) fn write(value: &Value<'_>, out: &mut Vec<u8>) {
    out.clear();
    save(value, out);
}

fn save(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::None => out.push(0xf6),
        Value::Int(int) => match u64::try_from(*int) {
            Ok(int) => head(0, int, out),
            Err(_) => head(1, u64::try_from(!*int).unwrap_or(u64::MAX), out), // -1 - int
        },
        Value::Text(text, _) => sized(3, text.as_bytes(), out),
        Value::Bytes(bytes) => sized(2, bytes, out),
        Value::Tuple(items) => {
            head(4, items.len() as u64, out);
            items.iter().for_each(|item| save(item, out));
        }
        Value::Tokens(tokens) => {
            head(4, tokens.len() as u64, out);
            tokens.iter().for_each(|token| head(0, *token, out));
        }
    }
}

fn sized(major: u8, bytes: &[u8], out: &mut Vec<u8>) {
    head(major, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Major type and argument, in the shortest form.
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let bytes = argument.to_be_bytes();
    let (code, width) = match argument {
        0..24 => return out.push(major << 5 | bytes[7]),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | code);
    out.extend_from_slice(&bytes[8 - width..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_the_shortest() {
        let cases: [(i128, &[u8]); 7] = [
            (23, &[0x17]),
            (24, &[0x18, 24]),
            (256, &[0x19, 1, 0]),
            (65_536, &[0x1a, 0, 1, 0, 0]),
            (1 << 32, &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
            (-1, &[0x20]),
            (-25, &[0x38, 24]),
        ];
        for (int, bytes) in cases {
            let mut out = vec![9];
            write(&Value::Int(int), &mut out);
            assert_eq!(out, bytes, "{int}");
        }
    }
}
