package main

// POST /api/pull: manifest, blobs, hashes of what was fetched, manifest to disk.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
)

// Progress is one line of a pull or a create.
type Progress struct {
	Status    string `json:"status"`
	Digest    string `json:"digest,omitempty"`
	Total     int64  `json:"total,omitempty"`
	Completed int64  `json:"completed,omitempty"`
}

type pullRequest struct {
	Model    string `json:"model"`
	Name     string `json:"name"`
	Insecure bool   `json:"insecure"`
	Stream   *bool  `json:"stream"`
}

func (s *Server) pull(w http.ResponseWriter, r *http.Request, req *pullRequest) error {
	name, err := newName(first(req.Model, req.Name))
	if err != nil {
		return err
	}
	return work(w, r, req.Stream, func(ctx context.Context, report func(Progress)) error {
		return pullModel(ctx, Registry{name, req.Insecure}, report)
	})
}

// work runs a long task: its progress and its error as a stream, or its last line alone. In the
// stream an error is one more line of an answer that said 200; alone it is a 500.
func work(w http.ResponseWriter, r *http.Request, streaming *bool, task func(context.Context, func(Progress)) error) error {
	if streaming == nil || *streaming {
		stream := &lines{w: w}
		return stream.end(task(r.Context(), func(p Progress) { stream.send(p) }))
	}
	var last Progress
	err := task(r.Context(), func(p Progress) { last = p })
	if err == nil {
		writeJSON(w, http.StatusOK, last)
	}
	return err
}

func pullModel(ctx context.Context, g Registry, report func(Progress)) error {
	var before []Layer
	if old, err := readManifest(g.name); err == nil && !envBool("OLLAMA_NOPRUNE") {
		before = old.all()
	}
	report(Progress{Status: "pulling manifest"})
	data, err := g.manifest(ctx)
	if err != nil {
		return fmt.Errorf("pull model manifest: %s", err)
	}
	m, err := parseManifest(data)
	if err != nil {
		return fmt.Errorf("pull model manifest: %s", err)
	}
	if err := os.MkdirAll(blobsDir(), 0o755); err != nil {
		return err
	}
	fetched := map[string]bool{}
	for _, layer := range m.all() {
		hit, err := fetchBlob(ctx, g, layer.Digest, report)
		if err != nil {
			return err
		}
		fetched[layer.Digest] = fetched[layer.Digest] || !hit
	}
	report(Progress{Status: "verifying sha256 digest"})
	for digest, fresh := range fetched {
		if !fresh {
			continue
		}
		if err := verifyBlob(digest); err != nil {
			return err
		}
	}
	report(Progress{Status: "writing manifest"})
	if err := writeManifest(g.name, data); err != nil {
		return err
	}
	if removeUnused(before) > 0 {
		report(Progress{Status: "removing unused layers"})
	}
	report(Progress{Status: "success"})
	return nil
}

func verifyBlob(digest string) error {
	f, err := os.Open(blobPath(digest))
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	got := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if got == digest {
		return nil
	}
	if err := os.Remove(f.Name()); err != nil {
		logInfo("images.go", fmt.Sprintf("couldn't remove file with digest mismatch '%s': %v", f.Name(), err))
	}
	return fmt.Errorf("digest mismatch, file must be downloaded again: want %s, got %s", digest, got)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
