package record

// Json.NET writes an object that occurs twice once, with "$id", and refers to it later by
// {"$ref":"<id>"}.

// Ref returns the value of "$ref" if object n is a reference and nothing else, or 0.
func (tr *Tree) Ref(n uint32) uint32 {
	v := &tr.Nodes[n]
	if v.Next != n+3 || tr.Nodes[n+2].Kind != KindString || string(tr.Inner(n+1)) != "$ref" {
		return 0
	}
	return n + 2
}
