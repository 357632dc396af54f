//! Pictures and voice messages from files: what their own first bytes say they are.

use imagesize::ImageType;
use rossby_client::DeviceError;
use rossby_client::envelope::{Picture, Voice};

use crate::exit::{Exit, Failure};

/// Samples of Opus are counted at this rate, whatever was recorded.
const OPUS_HZ: u64 = 48_000;

/// The picture in a file's bytes.
///
/// # Errors
/// If it is none that everybody can show.
pub fn picture_of(bytes: Vec<u8>, caption: &str) -> Result<Picture, Failure> {
    let media_type = match imagesize::image_type(&bytes) {
        Ok(ImageType::Gif) => "image/gif",
        Ok(ImageType::Jpeg) => "image/jpeg",
        Ok(ImageType::Png) => "image/png",
        Ok(ImageType::Webp) => "image/webp",
        _ => return Err(no_picture("it is not a GIF, JPEG, PNG or WebP")),
    };
    let size = imagesize::blob_size(&bytes).map_err(|_| no_picture("its size is not readable"))?;
    let pixels = |count: usize| u16::try_from(count).unwrap_or_default();
    let size = (pixels(size.width), pixels(size.height));
    Ok(Picture::new(media_type, size, caption, bytes).map_err(DeviceError::from)?)
}

fn no_picture(why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("not a picture to send: {why}"))
        .help("--file sends it as a file")
}

/// The voice message in a file's bytes; what is given is believed before what they say.
///
/// # Errors
/// If it is not known what it is.
pub fn voice_of(
    bytes: Vec<u8>,
    media_type: Option<&str>,
    duration_ms: Option<u32>,
) -> Result<Voice, Failure> {
    let (seen, length) = sound(&bytes);
    let Some(media_type) = media_type.or(seen) else {
        return Err(
            Failure::new(Exit::Refused, "not a recording that is known here")
                .help("say what it is, for example --media-type audio/amr"),
        );
    };
    let duration_ms = duration_ms.or(length).unwrap_or_default();
    Ok(Voice::new(media_type, duration_ms, bytes).map_err(DeviceError::from)?)
}

/// What a recording is, and its length in milliseconds, as far as its bytes say so.
fn sound(bytes: &[u8]) -> (Option<&'static str>, Option<u32>) {
    let at = |start: usize, magic: &[u8]| bytes.get(start..).is_some_and(|b| b.starts_with(magic));
    if at(0, b"OggS") {
        (Some("audio/ogg"), ogg_length(bytes))
    } else if at(0, b"RIFF") && at(8, b"WAVE") {
        (Some("audio/wav"), wav_length(bytes))
    } else if at(0, b"fLaC") {
        (Some("audio/flac"), None)
    } else if at(4, b"ftyp") {
        (Some("audio/mp4"), None)
    } else if at(0, b"ID3") || at(0, &[0xff, 0xfb]) {
        (Some("audio/mpeg"), None)
    } else if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        (Some("audio/webm"), None)
    } else {
        (None, None)
    }
}

/// The last page of an Ogg file says how many samples there are, its first how many make a second.
fn ogg_length(bytes: &[u8]) -> Option<u32> {
    let last_page = find_last(bytes, b"OggS")?;
    let samples = number::<8>(bytes, last_page + 6)?;
    let (rate, skipped) = match (find(bytes, b"OpusHead"), find(bytes, b"\x01vorbis")) {
        (Some(head), _) => (OPUS_HZ, number::<2>(bytes, head + 10)?),
        (None, Some(head)) => (number::<4>(bytes, head + 12)?, 0),
        (None, None) => return None,
    };
    millis(samples.checked_sub(skipped)?, rate)
}

/// A WAV file says how many bytes make a second, and how many there are.
fn wav_length(bytes: &[u8]) -> Option<u32> {
    let format = find(bytes, b"fmt ")?;
    let data = find(bytes, b"data")?;
    millis(
        number::<4>(bytes, data + 4)?,
        number::<4>(bytes, format + 16)?,
    )
}

fn millis(count: u64, per_second: u64) -> Option<u32> {
    let millis = count.checked_mul(1000)?.checked_div(per_second)?;
    u32::try_from(millis).ok().filter(|millis| *millis > 0)
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: &[u8; N] = bytes.get(at..)?.first_chunk()?;
    let join = |sum, byte: &u8| sum << 8 | u64::from(*byte);
    Some(bytes.iter().rev().fold(0, join))
}

fn find(bytes: &[u8], magic: &[u8]) -> Option<usize> {
    bytes.windows(magic.len()).position(|part| part == magic)
}

fn find_last(bytes: &[u8], magic: &[u8]) -> Option<usize> {
    bytes.windows(magic.len()).rposition(|part| part == magic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two pages of Ogg Opus: the head, and an end after this many samples.
    fn opus(samples: u64, skipped: u16) -> Vec<u8> {
        let head = [&b"OggS\0\x02"[..], &[0; 22], b"OpusHead\x01\x01"].concat();
        let skipped = skipped.to_le_bytes();
        let end = [&b"OggS\0\x04"[..], &samples.to_le_bytes(), &[0; 14]].concat();
        [&head[..], &skipped, &[0; 7], &end].concat()
    }

    fn wav(rate: u32, data: u32) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        bytes.extend(8000_u32.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend(b"\x02\0\x10\0data");
        bytes.extend(data.to_le_bytes());
        bytes
    }

    #[test]
    fn recordings_say_how_long_they_are() {
        let voice = voice_of(opus(48_000 * 3 / 2 + 312, 312), None, None).unwrap();
        assert_eq!(
            (voice.media_type(), voice.duration_ms()),
            ("audio/ogg", 1500)
        );
        let voice = voice_of(wav(16_000, 40_000), None, None).unwrap();
        assert_eq!(
            (voice.media_type(), voice.duration_ms()),
            ("audio/wav", 2500)
        );
        // What nobody can know is left open, and what is given is taken.
        let voice = voice_of(wav(0, 40_000), None, None).unwrap();
        assert_eq!(voice.duration_ms(), 0);
        let given = voice_of(b"?".to_vec(), Some("audio/amr"), Some(700)).unwrap();
        assert_eq!(
            (given.media_type(), given.duration_ms()),
            ("audio/amr", 700)
        );
        assert!(voice_of(b"?".to_vec(), None, Some(700)).is_err());
        assert!(voice_of(b"?".to_vec(), Some("text/html"), None).is_err());
    }

    #[test]
    fn a_picture_is_what_its_bytes_are() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(640_u32.to_be_bytes());
        png.extend(480_u32.to_be_bytes());
        png.extend([8, 6, 0, 0, 0, 0, 0, 0, 0]);
        let picture = picture_of(png.clone(), "a cat").unwrap();
        assert_eq!(picture.media_type(), "image/png");
        assert_eq!((picture.size(), picture.caption()), ((640, 480), "a cat"));
        png[16] = 1;
        assert!(picture_of(png, "").is_err(), "wider than anything");
        assert!(picture_of(b"<html>".to_vec(), "").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in 0..6_usize) {
            let magic = [&b""[..], b"OggS", b"RIFF\0\0\0\0WAVEfmt ", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8X"][magic];
            let bytes = [magic, &bytes].concat();
            let _ = voice_of(bytes.clone(), None, None);
            let _ = picture_of(bytes, "");
        }
    }
}
