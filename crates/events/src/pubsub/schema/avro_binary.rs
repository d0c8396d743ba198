//! Messages in Avro's binary encoding (Avro specification, "Binary Encoding"), held against a schema
//! without building anything of them. The crate's own reader goes as deep as the message says and takes
//! as much memory as the message claims to need, and whoever may publish writes the message.

use apache_avro::Schema;
use apache_avro::schema::{NamesRef, ResolvedSchema};

use super::avro::MAX_DEPTH;

/// How many values a message may hold. Items of an array can take no bytes at all.
const MAX_VALUES: u32 = 16 << 20;

pub(super) fn check(schema: &Schema, data: &[u8]) -> Result<(), String> {
    let resolved = ResolvedSchema::try_from(schema).map_err(|error| error.to_string())?;
    let mut reader = Reader {
        names: resolved.get_names(),
        rest: data,
        values: 0,
    };
    reader.value(schema, 0)?;
    match reader.rest.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes are left over")),
    }
}

struct Reader<'a> {
    names: &'a NamesRef<'a>,
    rest: &'a [u8],
    values: u32,
}

impl<'a> Reader<'a> {
    fn value(&mut self, schema: &Schema, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is more than {MAX_DEPTH} levels deep"));
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("it has more than {MAX_VALUES} values"));
        }
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => match self.take(1)? {
                [0 | 1] => Ok(()),
                other => Err(format!("{} is not a boolean", other[0])),
            },
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                let long = self.long()?;
                i32::try_from(long)
                    .map(drop)
                    .map_err(|_| format!("{long} is not an int"))
            }
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.long().map(drop),
            Schema::Float => self.take(4).map(drop),
            Schema::Double => self.take(8).map(drop),
            Schema::Bytes | Schema::BigDecimal => self.bytes().map(drop),
            Schema::String | Schema::Uuid => {
                let text = std::str::from_utf8(self.bytes()?);
                text.map(drop).map_err(|error| error.to_string())
            }
            Schema::Fixed(fixed) => self.take(fixed.size).map(drop),
            Schema::Duration => self.take(12).map(drop),
            Schema::Decimal(decimal) => self.value(&decimal.inner, depth + 1),
            Schema::Enum(symbols) => self.index(symbols.symbols.len()).map(drop),
            Schema::Union(union) => {
                let index = self.index(union.variants().len())?;
                self.value(&union.variants()[index], depth + 1)
            }
            Schema::Array(array) => self.blocks(|reader| reader.value(&array.items, depth + 1)),
            Schema::Map(map) => self.blocks(|reader| {
                reader.value(&Schema::String, depth + 1)?;
                reader.value(&map.types, depth + 1)
            }),
            Schema::Record(record) => record
                .fields
                .iter()
                .try_for_each(|field| self.value(&field.schema, depth + 1)),
            Schema::Ref { name } => match self.names.get(name) {
                Some(schema) => self.value(schema, depth + 1),
                None => Err(format!("{name:?} is not in the schema")),
            },
        }
    }

    /// Blocks of items, each with its count before it, up to a block of none.
    fn blocks(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            // A negative count is followed by how many bytes the items take, for who skips them.
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| format!("{length} is not a length"))?;
        self.take(length)
    }

    fn index(&mut self, below: usize) -> Result<usize, String> {
        let index = self.long()?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < below)
            .ok_or_else(|| format!("{index} is none of {below} branches or symbols"))
    }

    /// A number of variable length, with the sign in its lowest bit.
    fn long(&mut self) -> Result<i64, String> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err("a number has more than ten bytes".to_owned())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value as Avro;
    use proptest::prelude::*;

    use super::super::avro::compile;
    use super::*;

    fn schema(fields: &str) -> Schema {
        let text = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
        compile(&text).unwrap()
    }

    #[test]
    fn what_the_crate_writes_fits_and_what_is_longer_or_shorter_does_not() {
        let schema = schema(
            r#"{"name":"n","type":"long"}, {"name":"i","type":"int"}, {"name":"t","type":"string"},
               {"name":"u","type":["null","double"]}, {"name":"b","type":"boolean"},
               {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
               {"name":"f","type":{"type":"fixed","name":"F","size":3}},
               {"name":"a","type":{"type":"array","items":"float"}},
               {"name":"m","type":{"type":"map","values":"bytes"}}"#,
        );
        let map = [("k".to_owned(), Avro::Bytes(vec![1, 2]))];
        let value = Avro::Record(vec![
            ("n".to_owned(), Avro::Long(i64::MIN)),
            ("i".to_owned(), Avro::Int(-300)),
            ("t".to_owned(), Avro::String("Zürich".to_owned())),
            ("u".to_owned(), Avro::Union(1, Box::new(Avro::Double(1.5)))),
            ("b".to_owned(), Avro::Boolean(true)),
            ("e".to_owned(), Avro::Enum(1, "B".to_owned())),
            ("f".to_owned(), Avro::Fixed(3, vec![1, 2, 3])),
            ("a".to_owned(), Avro::Array(vec![Avro::Float(0.5); 3])),
            ("m".to_owned(), Avro::Map(map.into())),
        ]);
        let mut data = apache_avro::to_avro_datum(&schema, value).unwrap();
        assert_eq!(check(&schema, &data), Ok(()));
        for end in 0..data.len() {
            assert!(check(&schema, &data[..end]).is_err(), "{end} bytes");
        }
        data.push(0);
        assert!(check(&schema, &data).unwrap_err().contains("left over"));
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let one = |kind: &str, data: &[u8]| {
            check(&schema(&format!(r#"{{"name":"x","type":{kind}}}"#)), data)
        };
        for (kind, data, part) in [
            (r#""boolean""#, &[2_u8][..], "2 is not a boolean"),
            (r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x20], "not an int"),
            (r#""long""#, &[0x80; 11], "more than ten bytes"),
            (r#""string""#, &[2, 0xff], "utf-8"),
            (r#""bytes""#, &[1], "-1 is not a length"),
            (r#"["null","int"]"#, &[4], "2 is none of 2"),
            (
                r#"{"type":"array","items":"null"}"#,
                // A block of 2^62 items that take nothing.
                &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
                "more than",
            ),
        ] {
            let error = one(kind, data).unwrap_err();
            assert!(error.contains(part), "{kind}: {error}");
        }
    }

    #[test]
    fn a_message_cannot_go_deeper_than_the_stack() {
        let list = schema(r#"{"name":"next","type":["null","R"]}"#);
        assert_eq!(check(&list, &[2, 2, 2, 0]), Ok(()));
        let error = check(&list, &vec![2; 10 << 20]).unwrap_err();
        assert!(error.contains("levels deep"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let schema = schema(
                r#"{"name":"u","type":["null",{"type":"array","items":["string","R"]},"long"]},
                   {"name":"m","type":{"type":"map","values":"double"}}"#,
            );
            let ours = check(&schema, &data);
            if let Err(error) = &ours {
                prop_assert!(!error.is_empty());
            }
        }
    }
}
