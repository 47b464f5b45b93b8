package record

import (
	"crypto/sha256"
	"hash"
)

// ID computes event ids. One ID serves one Transformer.
type ID struct {
	hash    hash.Hash
	sum     [sha256.Size]byte
	hex     [32]byte
	name    []byte
	compact []byte
}

// NewID returns an ID.
func NewID() *ID { return &ID{hash: sha256.New()} }

// Release lets go of the memory that a giant record needed.
func (id *ID) Release() {
	if cap(id.compact) > KeepBytes {
		id.compact = nil
	}
}

// Held is about how many bytes the ID keeps.
func (id *ID) Held() int { return cap(id.compact) }

var (
	zero  = []byte{0}
	colon = []byte{':'}
	comma = []byte{','}
)

// Begin starts the id of a record of this tenant and table.
func (id *ID) Begin(tenant, table []byte) {
	id.hash.Reset()
	id.hash.Write(tenant)
	id.hash.Write(zero)
	id.hash.Write(table)
	id.hash.Write(zero)
}

// Write adds text to the id.
func (id *ID) Write(text []byte) { id.hash.Write(text) }

// value adds a JSON value without its insignificant white space.
func (id *ID) value(tr *Tree, n uint32) {
	raw := tr.Raw(n)
	if tr.Nodes[n].Flags&FlagSpaced != 0 && tr.Nodes[n].Kind >= KindArray {
		id.compact = appendCompact(id.compact[:0], raw)
		raw = id.compact
	}
	id.hash.Write(raw)
}

// End returns the id: the first 16 bytes of the SHA-256, in hex. It is valid until the next id.
func (id *ID) End() []byte {
	const digits = "0123456789abcdef"
	sum := id.hash.Sum(id.sum[:0])
	for i, c := range sum[:16] {
		id.hex[2*i], id.hex[2*i+1] = digits[c>>4], digits[c&15]
	}
	return id.hex[:]
}

// Bytes is the id that End returned last, not in hex. It is valid until the next id.
func (id *ID) Bytes() *[16]byte { return (*[16]byte)(id.sum[:]) }

// Of computes the id of a record of a table. Columns alone identify a hunting record: the service
// delivers 3 or 4 % of them again, with a fresh time in the envelope. Any other record, and a bare
// one, is identified by everything but the two times. The id is valid until the next.
func (id *ID) Of(r *Record, table string) []byte {
	var tenant []byte
	if r.Envelope.TenantID != 0 {
		tenant = r.Doc.Inner(r.Envelope.TenantID)
	}
	id.name = append(id.name[:0], table...)
	id.Begin(tenant, id.name)
	if r.Lifted && !r.Bare {
		id.value(&r.Columns, r.Props)
		return id.End()
	}
	doc := &r.Doc
	for k, end := uint32(1), doc.Nodes[0].Next; k < end; k = doc.Nodes[k+1].Next {
		if k+1 == r.Envelope.Time || k+1 == r.Envelope.Received {
			continue
		}
		id.hash.Write(doc.Raw(k))
		id.hash.Write(colon)
		id.value(doc, k+1)
		id.hash.Write(comma)
	}
	return id.End()
}
