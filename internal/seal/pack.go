package seal

import (
	"bytes"
	"compress/flate"
	"io"
	"sync"
)

// maxUnpacked bounds what a packed value may unpack to. A record is smaller.
const maxUnpacked = 1 << 20

var (
	packers   = sync.Pool{New: func() any { return newPacker() }}
	unpackers = sync.Pool{New: func() any { return flate.NewReader(nil) }}
)

func newPacker() *flate.Writer {
	w, err := flate.NewWriter(nil, flate.HuffmanOnly)
	if err != nil {
		panic(err) // only for a level that does not exist
	}
	return w
}

// Pack makes a record a quarter smaller: tokens are base64, which has six bits
// in each byte.
//
// Compression before encryption can betray a secret by the length of what is
// sealed, if an attacker chooses other parts of it (CRIME). That takes string
// matching: a guess that occurs in the secret is written as a reference to it.
// HuffmanOnly has none. The length depends on how often each byte occurs in
// all, and of a token of random letters that is known beforehand.
func Pack(plain []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(plain) + 64)
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&b)
	w.Write(plain) // a Buffer takes everything
	w.Close()
	return b.Bytes()
}

// Unpack reverses pack.
func Unpack(packed []byte) ([]byte, error) {
	r := unpackers.Get().(io.ReadCloser)
	defer unpackers.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(packed), nil); err != nil {
		return nil, ErrUnsealed
	}
	b := bytes.NewBuffer(make([]byte, 0, 2*len(packed)))
	n, err := io.Copy(b, io.LimitReader(r, maxUnpacked+1))
	if err != nil || n > maxUnpacked {
		return nil, ErrUnsealed
	}
	return b.Bytes(), nil
}
