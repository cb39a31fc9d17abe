package seal

import (
	"bytes"
	"compress/flate"
	"errors"
	"strings"
	"testing"
)

// What is packed comes back, whatever it is; what is not packed is an error.
func TestPack(t *testing.T) {
	for _, tc := range []struct {
		name  string
		plain []byte
	}{
		{"nothing", nil},
		{"one byte", []byte("x")},
		{"tokens", []byte(Encode(Random(3000)))},
		{"what does not shrink", Random(5000)},
		{"the largest record", bytes.Repeat([]byte("ab"), 28<<10)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			packed := Pack(tc.plain)
			got, err := Unpack(packed)
			if err != nil || !bytes.Equal(got, tc.plain) {
				t.Fatalf("unpack(pack) = %d bytes, %v; want the %d there were", len(got), err, len(tc.plain))
			}
			for _, bad := range [][]byte{packed[:len(packed)-1], nil} {
				if _, err := Unpack(bad); !errors.Is(err, ErrUnsealed) {
					t.Errorf("unpack of %d bytes of %d: %v, want %v", len(bad), len(packed), err, ErrUnsealed)
				}
			}
		})
	}
}

// Tokens shrink by what base64 adds.
func TestPackSize(t *testing.T) {
	plain := []byte(Encode(Random(3000)))
	if got, most := len(Pack(plain)), len(plain)*77/100; got > most {
		t.Errorf("%d bytes of base64 packed to %d, want %d at most", len(plain), got, most)
	}
}

// A guess that occurs in a secret packs to the same length as one that does
// not: otherwise the length of a record would tell tokens letter by letter.
func TestPackTellsNoGuess(t *testing.T) {
	secret := Encode(Random(60))
	right := secret[:40]
	wrong := right[20:] + right[:20] // the same letters
	length := func(guess string) int { return len(Pack([]byte(guess + "|" + secret))) }
	if r, w := length(right), length(wrong); r != w {
		t.Errorf("with a right guess %d bytes, with a wrong one %d", r, w)
	}
}

// A value that unpacks to more than any record has is refused, not unpacked.
func TestUnpackBounded(t *testing.T) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(strings.Repeat("a", maxUnpacked+1)))
	w.Close()
	if _, err := Unpack(b.Bytes()); !errors.Is(err, ErrUnsealed) {
		t.Errorf("unpack of %d bytes in %d: %v, want %v", maxUnpacked+1, b.Len(), err, ErrUnsealed)
	}
}
