"""What headers say."""

import hashlib
import time
from email.utils import formatdate

import pytest

from projects.openimages.download.remote import Remote, range_of, seconds_to_wait

MD5 = hashlib.md5(b'data').digest()
GOOGLE = {'x-goog-hash': 'crc32c=yZRlqg==, md5=jXd/OF09/siBXSD3SWAm3A=='}
AMAZON = {'etag': f'"{MD5.hex()}"', 'x-amz-request-id': 'A'}


def test_google_states_both_checksums():
    remote = Remote.from_headers(GOOGLE)
    assert (remote.md5, remote.crc32c) == (MD5, 0xC99465AA)


@pytest.mark.parametrize(('headers', 'md5'), [
    (AMAZON, MD5),
    ({**AMAZON, 'x-amz-server-side-encryption': 'AES256'}, MD5),
    ({**AMAZON, 'x-amz-server-side-encryption': 'aws:kms'}, None),
    ({**AMAZON, 'x-amz-server-side-encryption-customer-algorithm': 'AES256'}, None),
    ({**AMAZON, 'etag': f'"{MD5.hex()}-4"'}, None),  # sent in four pieces
    ({**AMAZON, 'etag': f'W/"{MD5.hex()}"'}, None),
    ({'etag': f'"{MD5.hex()}"'}, None),  # of a server that does not say what it is
    ({**GOOGLE, 'x-goog-stored-content-encoding': 'gzip'}, None),
    ({'x-goog-hash': 'md5=!'}, None),
    ({}, None)])
def test_an_etag_is_a_checksum_only_where_it_surely_is(headers, md5):
    assert Remote.from_headers(headers).md5 == md5


def test_a_version_is_a_strong_etag_or_a_date():
    date = formatdate(0, usegmt=True)
    assert Remote.from_headers({'etag': '"a"', 'last-modified': date}).version == '"a"'
    assert Remote.from_headers({'etag': 'W/"a"', 'last-modified': date}).version == date
    assert Remote.from_headers({'etag': 'W/"a"'}).version is None


def test_the_size_of_a_range_is_that_of_the_whole_file():
    headers = {'content-length': '5', 'content-range': 'bytes 5-9/10'}
    assert Remote.from_headers(headers, is_range=True).size == 10
    assert Remote.from_headers(headers).size == 5
    assert range_of(headers) == (5, 10)
    assert range_of({'content-range': 'bytes */10'}) == (None, None)


@pytest.mark.parametrize(('text', 'seconds'), [
    ('7', 7), ('', None), ('soon', None), ('Wed, 21 Oct 2015 07:28:00 GMT', 0)])
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert seconds_to_wait({'retry-after': text}) == seconds


def test_a_date_to_come_is_waited_for():
    text = formatdate(time.time() + 1000, usegmt=True)
    assert 900 < seconds_to_wait({'retry-after': text}) <= 1000
