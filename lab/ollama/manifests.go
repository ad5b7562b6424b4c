package main

// The store on disk: manifests as the registry sent them, byte for byte, and blobs by digest.

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"
)

// Media types of a manifest and its layers.
const (
	typeManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeConfig   = "application/vnd.docker.container.image.v1+json"
	typeLayer    = "application/vnd.ollama.image."

	pruneGrace = time.Hour
)

var blobName = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)
var digestForm = regexp.MustCompile(`^sha256[:-]([0-9a-fA-F]{64})$`)

// Layer is one blob of a manifest.
type Layer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	From      string `json:"from,omitempty"`
}

// Manifest names a model's blobs.
type Manifest struct {
	SchemaVersion int     `json:"schemaVersion"`
	MediaType     string  `json:"mediaType"`
	Config        Layer   `json:"config"`
	Layers        []Layer `json:"layers"`

	digest   string
	modified time.Time
}

// Config is the blob that the manifest calls config.
type Config struct {
	ModelFormat   string   `json:"model_format"`
	ModelFamily   string   `json:"model_family"`
	ModelFamilies []string `json:"model_families"`
	ModelType     string   `json:"model_type"`
	FileType      string   `json:"file_type"`
	Architecture  string   `json:"architecture"`
	OS            string   `json:"os"`
	RootFS        RootFS   `json:"rootfs"`
}

// RootFS lists the layers once more, as in any image.
type RootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

func (m *Manifest) all() []Layer {
	if m.Config.Digest == "" {
		return m.Layers
	}
	return append(append([]Layer{}, m.Layers...), m.Config)
}

func (m *Manifest) size() (total int64) {
	for _, layer := range m.all() {
		total += layer.Size
	}
	return total
}

func (m *Manifest) layer(kind string) *Layer {
	for i := range m.Layers {
		if m.Layers[i].MediaType == typeLayer+kind {
			return &m.Layers[i]
		}
	}
	return nil
}

// text is the content of the layer of that kind, or nothing.
func (m *Manifest) text(kind string) string {
	layer := m.layer(kind)
	if layer == nil {
		return ""
	}
	data, _ := os.ReadFile(blobPath(layer.Digest))
	return string(data)
}

func (m *Manifest) config() (c Config) {
	if data, err := os.ReadFile(blobPath(m.Config.Digest)); err == nil {
		_ = json.Unmarshal(data, &c)
	}
	return c
}

func blobsDir() string     { return filepath.Join(envModels(), "blobs") }
func manifestsDir() string { return filepath.Join(envModels(), "manifests") }

// blobPath is the file of a digest; the caller has checked its form.
func blobPath(digest string) string {
	return filepath.Join(blobsDir(), strings.Replace(digest, ":", "-", 1))
}

func validDigest(s string) (string, bool) {
	found := digestForm.FindStringSubmatch(s)
	if found == nil {
		return "", false
	}
	return "sha256:" + found[1], true
}

// storeBlob writes a blob under the digest of its bytes, which has to be the wanted one where one is.
func storeBlob(kind string, body io.Reader, wanted string) (layer Layer, err error) {
	f, err := os.CreateTemp(blobsDir(), "sha256-")
	if err != nil {
		return layer, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	sum := sha256.New()
	layer.MediaType = kind
	if layer.Size, err = io.Copy(io.MultiWriter(f, sum), body); err != nil {
		return layer, err
	}
	layer.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if wanted != "" && wanted != layer.Digest {
		return layer, refuse(http.StatusBadRequest, "digest mismatch, expected %q, got %q", wanted, layer.Digest)
	}
	if err := f.Chmod(0o644); err != nil {
		return layer, err
	}
	return layer, os.Rename(f.Name(), blobPath(layer.Digest))
}

func parseManifest(data []byte) (*Manifest, error) {
	sum := sha256.Sum256(data)
	m := &Manifest{digest: hex.EncodeToString(sum[:])}
	return m, json.Unmarshal(data, m)
}

func readManifest(n Name) (*Manifest, error) {
	path := filepath.Join(manifestsDir(), n.Path())
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(data)
	m.modified = info.ModTime()
	return m, err
}

func writeManifest(n Name, data []byte) error {
	path := filepath.Join(manifestsDir(), n.Path())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// listManifests reads the disk each time: a manifest copied in beside its blobs is listed at once.
func listManifests() map[Name]*Manifest {
	found := map[Name]*Manifest{}
	paths, _ := filepath.Glob(filepath.Join(manifestsDir(), "*", "*", "*", "*"))
	for _, path := range paths {
		rel, err := filepath.Rel(manifestsDir(), path)
		if err != nil {
			continue
		}
		parts := strings.Split(rel, string(filepath.Separator))
		n := Name{parts[0], parts[1], parts[2], parts[3]}
		if !n.Valid() {
			logWarn("manifest.go", "bad manifest name", "path", rel)
			continue
		}
		m, err := readManifest(n)
		if err != nil {
			logWarn("manifest.go", "bad manifest", "name", n, "error", err)
			continue
		}
		found[n] = m
	}
	return found
}

// existingName is the stored name that differs from the asked one at most by case.
func existingName(n Name) Name {
	if _, err := os.Stat(filepath.Join(manifestsDir(), n.Path())); err == nil {
		return n
	}
	var same []Name
	for stored := range listManifests() {
		if stored.Is(n) {
			same = append(same, stored)
		}
	}
	if len(same) == 0 {
		return n
	}
	sort.Slice(same, func(i, j int) bool { return same[i].Path() < same[j].Path() })
	return same[0]
}

// removeUnused removes those blobs that no manifest names any more, and says how many they were.
func removeUnused(layers []Layer) (removed int) {
	used := usedBlobs()
	for _, layer := range layers {
		if digest, ok := validDigest(layer.Digest); ok && !used[filepath.Base(blobPath(digest))] {
			removed++
			if err := os.Remove(blobPath(digest)); err != nil && !errors.Is(err, os.ErrNotExist) {
				logWarn("images.go", "couldn't remove blob", "digest", digest, "error", err)
			}
		}
	}
	return removed
}

// usedBlobs are the file names of those that a manifest names.
func usedBlobs() map[string]bool {
	used := map[string]bool{}
	for _, m := range listManifests() {
		for _, layer := range m.all() {
			used[filepath.Base(blobPath(layer.Digest))] = true
		}
	}
	return used
}

func removeManifest(n Name) error {
	path := filepath.Join(manifestsDir(), n.Path())
	if err := os.Remove(path); err != nil {
		return err
	}
	for dir := filepath.Dir(path); dir != manifestsDir(); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// prune removes, at start, blobs that nothing names, partial downloads among them. Only what is
// older than an hour: a fresh one may belong to a model being seeded.
func prune() error {
	entries, err := os.ReadDir(blobsDir())
	if err != nil {
		return err
	}
	used := usedBlobs()
	total, removed := 0, 0
	for _, entry := range entries {
		if blobName.MatchString(entry.Name()) {
			total++
		}
		info, err := entry.Info()
		if err != nil || used[entry.Name()] || time.Since(info.ModTime()) < pruneGrace {
			continue
		}
		if os.Remove(filepath.Join(blobsDir(), entry.Name())) == nil {
			removed++
		}
	}
	logInfo("images.go", fmt.Sprintf("total blobs: %d", total))
	logInfo("images.go", fmt.Sprintf("total unused blobs removed: %d", removed))
	return nil
}
