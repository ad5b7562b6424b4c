package main

// Just enough of the GGUF format for /api/show, the context limit and the checks made before a load:
// magic, keys, tensors and whether they lie inside the file. The data itself is never looked at.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
)

var errMagic = errors.New("invalid file magic")

// GGUF is a model file's head.
type GGUF struct {
	Keys       map[string]any
	Parameters uint64
	words      uint64 // of the vocabulary
	tensors    []tensor
}

type tensor struct {
	name   string
	kind   uint32
	shape  []uint64
	count  uint64
	offset uint64
}

// blocks: elements and bytes of one block, by tensor type.
var blocks = map[uint32][2]uint64{
	0: {1, 4}, 1: {1, 2}, 2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34}, 9: {32, 36},
	10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210}, 15: {256, 292},
	24: {1, 1}, 25: {1, 2}, 26: {1, 4}, 27: {1, 8}, 28: {1, 8}, 30: {1, 2}, 39: {32, 17},
}

var tensorTypes = map[uint32]string{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K",
	11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16", 39: "MXFP4"}

type ggufReader struct {
	r   *bufio.Reader
	at  int64
	err error
}

func (g *ggufReader) bytes(n uint64) []byte {
	if g.err == nil && n > 1<<28 {
		g.err = errors.New("invalid string length")
	}
	if g.err != nil {
		return nil
	}
	b := make([]byte, n)
	_, g.err = io.ReadFull(g.r, b)
	g.at += int64(n)
	return b
}

func (g *ggufReader) u32() uint32 { return uint32(number(4, g.bytes(4)).(uint64)) }
func (g *ggufReader) u64() uint64 { return number(10, g.bytes(8)).(uint64) }

func (g *ggufReader) str() string { return string(g.bytes(g.u64())) }

// value reads one value; an array becomes its length, which is all that /api/show tells of it.
func (g *ggufReader) value(kind uint32) any {
	sizes := map[uint32]uint64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
	switch kind {
	case 8:
		return g.str()
	case 9:
		inner, n := g.u32(), g.u64()
		if size, ok := sizes[inner]; ok {
			skipped, err := g.r.Discard(int(size * n))
			g.at += int64(skipped)
			if g.err == nil {
				g.err = err
			}
			return nil
		}
		for i := uint64(0); i < n && g.err == nil; i++ {
			g.value(inner)
		}
		return nil
	}
	size, ok := sizes[kind]
	if !ok && g.err == nil {
		g.err = fmt.Errorf("invalid type: %d", kind)
	}
	b := g.bytes(size)
	if g.err != nil {
		return nil
	}
	return number(kind, b)
}

// number is a value by its kind's number: signed, a float, a truth, or unsigned.
func number(kind uint32, b []byte) any {
	var n uint64
	for i, c := range b {
		n |= uint64(c) << (8 * i)
	}
	switch kind {
	case 1, 3, 5, 11:
		unused := 64 - 8*len(b)
		return int64(n<<unused) >> unused
	case 6:
		return math.Float32frombits(uint32(n))
	case 7:
		return n != 0
	case 12:
		return math.Float64frombits(n)
	}
	return n
}

var (
	ggufCache   = map[string]*GGUF{}
	ggufCacheMu sync.Mutex
)

// readGGUF reads the head of a model file, once for each state of the file.
func readGGUF(path string) (*GGUF, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprint(path, info.Size(), info.ModTime())
	ggufCacheMu.Lock()
	defer ggufCacheMu.Unlock()
	if g := ggufCache[key]; g != nil {
		return g, nil
	}
	g, err := decodeGGUF(path, info.Size())
	if err == nil {
		ggufCache[key] = g
	}
	return g, err
}

func decodeGGUF(path string, size int64) (*GGUF, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &ggufReader{r: bufio.NewReaderSize(f, 1<<20)}
	if magic := r.bytes(4); r.err != nil || string(magic) != "GGUF" {
		return nil, errMagic
	}
	r.u32() // version
	tensors, keys := r.u64(), r.u64()
	g := &GGUF{Keys: map[string]any{}}
	for i := uint64(0); i < keys && r.err == nil; i++ {
		name := r.str()
		if value := r.value(r.u32()); value != nil {
			g.Keys[name] = value
		}
	}
	for i := uint64(0); i < tensors && r.err == nil; i++ {
		t := tensor{name: r.str(), count: 1}
		for dims := r.u32(); dims > 0 && r.err == nil; dims-- {
			t.shape = append(t.shape, r.u64())
			t.count *= t.shape[len(t.shape)-1]
		}
		if t.name == "token_embd.weight" && len(t.shape) == 2 {
			g.words = t.shape[1]
		}
		t.kind, t.offset = r.u32(), r.u64()
		g.Parameters += t.count
		g.tensors = append(g.tensors, t)
	}
	if r.err != nil {
		return nil, r.err
	}
	return g, g.check(r.at, size)
}

// check finds a truncated file. Wrong bytes of the right length pass.
func (g *GGUF) check(head, size int64) error {
	align := g.number("general.alignment")
	if align == 0 {
		align = 32
	}
	start := (uint64(head) + align - 1) / align * align
	for _, t := range g.tensors {
		block, ok := blocks[t.kind]
		if !ok {
			continue
		}
		if end := start + t.offset + t.count/block[0]*block[1]; end > uint64(size) {
			return fmt.Errorf("tensor %q offset+size (%d) exceeds file size (%d)", t.name, end, size)
		}
	}
	return nil
}

func (g *GGUF) number(key string) uint64 {
	switch n := g.Keys[key].(type) {
	case uint64:
		return n
	case int64:
		return uint64(n)
	}
	return 0
}

func (g *GGUF) arch() string {
	s, _ := g.Keys["general.architecture"].(string)
	return s
}

// pooled: the file says how its vectors are pooled, so its model makes embeddings.
func (g *GGUF) pooled() bool { return g.Keys[g.arch()+".pooling_type"] != nil }

func (g *GGUF) layers() int { return int(g.number(g.arch() + ".block_count")) }

// contextLimit is the context the model was trained with.
func (g *GGUF) contextLimit() int { return int(g.number(g.arch() + ".context_length")) }

// fileTypes names the quantisation, by general.file_type.
var fileTypes = map[uint64]string{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1",
	10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
	18: "Q6_K", 32: "BF16", 38: "MXFP4"}

func (g *GGUF) fileType() string { return first(fileTypes[g.number("general.file_type")], "unknown") }

func humanCount(n uint64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.2fM", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}
