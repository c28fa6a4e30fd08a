//! Fields of protocol buffers, and checksums: what ONNX models and TensorBoard's event files are written with.
//!
//! By hand: these few lines write all dozen types of messages, of which each has few fields and none is ever read; derived
//! ones would bring a decoder for each. Fields are written in the order of the calls, so that bytes follow from those.

/// A message, field after field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// No field yet.
    pub fn new() -> Message {
        Message::default()
    }

    /// The message's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    /// A whole number, a flag or an enumerator.
    #[must_use]
    pub fn whole(mut self, field: u32, value: i64) -> Message {
        self.key(field, 0);
        // Negative ones take ten bytes, as the format has it.
        self.varint(value as u64);
        self
    }

    /// A number of single precision.
    #[must_use]
    pub fn single(mut self, field: u32, value: f32) -> Message {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A number of double precision.
    #[must_use]
    pub fn double(mut self, field: u32, value: f64) -> Message {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(mut self, field: u32, bytes: &[u8]) -> Message {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text.
    #[must_use]
    pub fn text(self, field: u32, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    /// A message.
    #[must_use]
    pub fn message(self, field: u32, message: &Message) -> Message {
        self.bytes(field, &message.0)
    }

    /// A message for each of these.
    #[must_use]
    pub fn messages(self, field: u32, messages: &[Message]) -> Message {
        messages.iter().fold(self, |out, message| out.message(field, message))
    }
}

/// A cyclic redundancy check of 32 bits, reflected, complemented.
pub struct Crc([u32; 256]);

/// That of ZIP files (ISO 3309).
pub static CRC32: Crc = Crc::new(0xedb8_8320);
/// That of event files (Castagnoli's polynomial).
pub static CRC32C: Crc = Crc::new(0x82f6_3b78);

impl Crc {
    const fn new(polynomial: u32) -> Crc {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        Crc(table)
    }

    /// The check of these pieces, one after the other.
    pub fn of(&self, pieces: &[&[u8]]) -> u32 {
        let mut crc = !0;
        for byte in pieces.iter().flat_map(|piece| piece.iter()) {
            crc = crc >> 8 ^ self.0[usize::from(crc as u8 ^ byte)];
        }
        !crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_format_has_them() {
        // The examples of the format's own documentation, and RFC 3720's for the checksum.
        assert_eq!(Message::new().whole(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().text(2, "testing").into_bytes(), b"\x12\x07testing");
        let inner = Message::new().whole(1, 150);
        assert_eq!(Message::new().message(3, &inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::new().whole(1, -2).into_bytes().len(), 11);
        assert_eq!(Message::new().single(16, 1.0).into_bytes(), [0x85, 0x01, 0, 0, 0x80, 0x3f]);
        assert_eq!(Message::new().double(1, 1.0).into_bytes(), [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(CRC32.of(&[b"1234", b"56789"]), 0xcbf4_3926);
        assert_eq!(CRC32C.of(&[b"123456789"]), 0xe306_9283);
        assert_eq!(CRC32C.of(&[&[0; 32]]), 0x8a91_36aa);
    }
}
