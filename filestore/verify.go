package filestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The parts of bbolt's file format that its code trusts without a look.
const (
	pageHeader  = 16 // id (8), flags (2), count (2), overflow (4)
	elementSize = 16
	metaSize    = 64
	metaSum     = 56 // where the checksum stands in a meta page, after the header
	noFreelist  = ^uint64(0)
	manyFree    = 0xffff // a count that says: the first id is the count

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketEntry  = 0x01
)

var native = binary.NativeEndian // bbolt writes its structs as they lie in memory

// verify reads all that leads to entries in a file, and reports the first thing
// that bbolt would stumble over. bbolt maps the file into memory and follows
// what it finds there: in a file that is cut short or overwritten that ends in a
// panic, a fault that ends the process, or an endless loop.
func verify(file io.ReaderAt, size, pageSize int64) error {
	v := verifier{file: file, pageSize: pageSize}
	root, freelist, err := v.meta()
	if err != nil {
		return err
	}
	if v.pages < 3 || v.pages > uint64(size/pageSize) {
		return fmt.Errorf("it has %d pages and should have %d", size/pageSize, v.pages)
	}
	v.used = make([]bool, v.pages)
	v.used[0], v.used[1] = true, true
	if err := v.tree(root, span{}); err != nil {
		return err
	}
	return v.free(freelist)
}

type verifier struct {
	file     io.ReaderAt
	pageSize int64
	pages    uint64 // in use, or free
	used     []bool // by page: somebody has claimed it
}

// meta reads the newer of the two meta pages that are whole.
func (v *verifier) meta() (root, freelist uint64, err error) {
	newest := uint64(0)
	found := false
	for i := range int64(2) {
		m := make([]byte, metaSize)
		if _, err := v.file.ReadAt(m, i*v.pageSize+pageHeader); err != nil {
			return 0, 0, err
		}
		sum := fnv.New64a()
		sum.Write(m[:metaSum])
		if native.Uint64(m[metaSum:]) != sum.Sum64() {
			continue
		}
		if tx := native.Uint64(m[48:]); !found || tx > newest {
			found, newest = true, tx
			root, freelist, v.pages = native.Uint64(m[16:]), native.Uint64(m[32:]), native.Uint64(m[40:])
		}
	}
	if !found {
		return 0, 0, errors.New("neither meta page is whole")
	}
	return root, freelist, nil
}

// claim reads a page that nobody else uses, with those it runs over into.
func (v *verifier) claim(id uint64) (page []byte, err error) {
	if id < 2 || id >= v.pages {
		return nil, fmt.Errorf("page %d is out of range", id)
	}
	header := make([]byte, pageHeader)
	if _, err := v.file.ReadAt(header, int64(id)*v.pageSize); err != nil {
		return nil, err
	}
	if own := native.Uint64(header); own != id {
		return nil, fmt.Errorf("page %d calls itself %d", id, own)
	}
	length := 1 + uint64(native.Uint32(header[12:]))
	if length > v.pages-id {
		return nil, fmt.Errorf("page %d runs over the end", id)
	}
	for i := id; i < id+length; i++ {
		if v.used[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		v.used[i] = true
	}
	page = make([]byte, int64(length)*v.pageSize)
	_, err = v.file.ReadAt(page, int64(id)*v.pageSize)
	return page, err
}

// span is where the keys of a page must lie: from low to before high, which may
// be nil for no bound.
type span struct{ low, high []byte }

// tree verifies a page and all below it.
func (v *verifier) tree(id uint64, within span) error {
	page, err := v.claim(id)
	if err != nil {
		return err
	}
	if err := v.elements(page, within); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elements verifies that what a page says about its elements stays within it,
// that they are in order, and what they lead to.
func (v *verifier) elements(page []byte, within span) error {
	flags, count := native.Uint16(page[8:]), int(native.Uint16(page[10:]))
	known := flags == leafPage || flags == branchPage && count > 0
	if !known || len(page) < pageHeader+count*elementSize {
		return fmt.Errorf("flags %#x, %d elements", flags, count)
	}
	keys := make([][]byte, count+1)
	keys[count] = within.high
	for i := range count {
		key, value, err := element(page, flags, i)
		if err != nil {
			return err
		}
		keys[i] = key
		if !ordered(keys[:i+1], within) {
			return fmt.Errorf("element %d is out of order", i)
		}
		if flags == leafPage && native.Uint32(page[pageHeader+i*elementSize:])&bucketEntry != 0 {
			if err := v.bucket(value); err != nil {
				return err
			}
		}
	}
	if flags == leafPage {
		return nil
	}
	for i := range count {
		child := native.Uint64(page[pageHeader+i*elementSize+8:])
		if err := v.tree(child, span{keys[i], keys[i+1]}); err != nil {
			return err
		}
	}
	return nil
}

// ordered reports whether the last of keys follows the one before, and lies
// within a span.
func ordered(keys [][]byte, within span) bool {
	i := len(keys) - 1
	key := keys[i]
	if within.high != nil && bytes.Compare(key, within.high) >= 0 {
		return false
	}
	if i == 0 {
		return bytes.Compare(key, within.low) >= 0
	}
	return bytes.Compare(keys[i-1], key) < 0
}

// element returns the key and, on a leaf, the value of one element.
func element(page []byte, flags uint16, i int) (key, value []byte, err error) {
	at := pageHeader + i*elementSize
	e := page[at:][:elementSize]
	// Positions count from the element itself.
	pos, keySize, valueSize := int(native.Uint32(e)), int(native.Uint32(e[4:])), 0
	if flags == leafPage {
		pos, keySize, valueSize = int(native.Uint32(e[4:])), int(native.Uint32(e[8:])), int(native.Uint32(e[12:]))
	}
	rest := page[at:]
	if keySize == 0 || pos > len(rest) || keySize > len(rest)-pos || valueSize > len(rest)-pos-keySize {
		return nil, nil, fmt.Errorf("element %d leads out of it", i)
	}
	return rest[pos:][:keySize], rest[pos+keySize:][:valueSize], nil
}

// bucket verifies a bucket: the page of its root, or, if that is 0, a page that
// stands in the entry itself.
func (v *verifier) bucket(entry []byte) error {
	const head = 16 // root (8), sequence (8)
	if len(entry) < head {
		return errors.New("a bucket is cut short")
	}
	if root := native.Uint64(entry); root != 0 {
		return v.tree(root, span{})
	}
	if len(entry) < head+pageHeader {
		return errors.New("a bucket is cut short")
	}
	return v.elements(entry[head:], span{})
}

// free verifies the list of free pages: one that is used as well would be
// written over.
func (v *verifier) free(id uint64) error {
	if id == noFreelist {
		return nil
	}
	page, err := v.claim(id)
	if err != nil {
		return err
	}
	count, ids := uint64(native.Uint16(page[10:])), page[pageHeader:]
	if count == manyFree {
		count, ids = native.Uint64(ids), ids[8:]
	}
	if native.Uint16(page[8:]) != freelistPage || count > uint64(len(ids))/8 {
		return fmt.Errorf("page %d is no list of free pages", id)
	}
	for i := range count {
		free := native.Uint64(ids[i*8:])
		if free < 2 || free >= v.pages || v.used[free] {
			return fmt.Errorf("free page %d is out of range or used", free)
		}
		v.used[free] = true
	}
	return nil
}
