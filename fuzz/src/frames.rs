//! What travels over streams.

use dockercomp_network::framed::{read_frame, write_frame};
use dockercomp_protocol::codec;
use dockercomp_protocol::limits::WORK_MESSAGE_BYTES_MAX;
use dockercomp_protocol::wire::chunk::{ANSWER_BYTES, Answer, REQUEST_BYTES, Request};
use dockercomp_protocol::wire::{swarm, work};
use futures::FutureExt;

/// Length-prefixed messages, one after the other, until the stream ends.
pub(crate) fn framed(mut bytes: &[u8]) -> bool {
    const MAX: usize = 64 << 10;
    let mut frames = 0;
    loop {
        let before = bytes;
        let read = read_frame(&mut bytes, MAX).now_or_never().expect("bytes in memory never wait");
        let Ok(payload) = read else { return frames > 0 };
        let mut written = Vec::new();
        let wrote = write_frame(&mut written, &payload, MAX).now_or_never();
        wrote.expect("memory never waits").expect("what was read is not too long");
        assert_eq!(written, before[..before.len() - bytes.len()]);
        frames += 1;
    }
}

/// Requests for chunks, or answers to them, one after the other; the first byte says which.
pub(crate) fn chunk_stream(bytes: &[u8]) -> bool {
    let Some((side, bytes)) = bytes.split_first() else { return false };
    if side % 2 == 0 {
        let (frames, _) = bytes.as_chunks::<REQUEST_BYTES>();
        frames.iter().filter(|frame| is_request(frame)).count() > 0
    } else {
        let (frames, _) = bytes.as_chunks::<ANSWER_BYTES>();
        frames.iter().filter(|frame| is_answer(frame)).count() > 0
    }
}

fn is_request(frame: &[u8; REQUEST_BYTES]) -> bool {
    let decoded = Request::decode(frame);
    decoded.is_ok_and(|request| request.encode() == *frame)
}

/// An answer's unused bytes are not looked at, so only its meaning is the same again.
fn is_answer(frame: &[u8; ANSWER_BYTES]) -> bool {
    let Ok(answer) = Answer::decode(frame) else { return false };
    assert_eq!(Answer::decode(&answer.encode()).ok(), Some(answer));
    true
}

/// What those say that want a dataset, and those that have it.
pub(crate) fn swarm_message(bytes: &[u8]) -> bool {
    let question = swarm::Question::decode(bytes);
    let news = swarm::News::decode(bytes);
    if let Ok(swarm::News::Map { bits, .. }) = &news {
        let held = swarm::marked(bits, bits.len() * 8).expect("as many bits as blocks");
        let mut blocks = vec![false; bits.len() * 8];
        held.into_iter().for_each(|block| blocks[block] = true);
        assert_eq!(swarm::News::map(0, &blocks), swarm::News::Map { list: 0, bits: bits.clone() });
    }
    if let Ok(question) = &question {
        assert_eq!(codec::encode(question), bytes);
    }
    if let Ok(news) = &news {
        assert_eq!(codec::encode(news), bytes);
    }
    question.is_ok() || news.is_ok()
}

/// What a node asks of its coordinator.
pub(crate) fn work_request(bytes: &[u8]) -> bool {
    let Ok(request) = work::Request::decode(bytes) else { return false };
    assert!(bytes.len() <= WORK_MESSAGE_BYTES_MAX);
    assert_eq!(codec::encode(&request), bytes);
    true
}

/// What a coordinator answers.
pub(crate) fn work_response(bytes: &[u8]) -> bool {
    let Ok(response) = work::Response::decode(bytes) else { return false };
    assert!(bytes.len() <= WORK_MESSAGE_BYTES_MAX);
    assert_eq!(codec::encode(&response), bytes);
    true
}
