package main

// POST /api/pull: manifest, blobs, hashes of what was fetched, manifest to disk.

import (
	"context"
	"errors"
	"fmt"
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

func (s *Server) pull(w http.ResponseWriter, r *http.Request) {
	var req pullRequest
	if !readJSON(w, r, &req) {
		return
	}
	asked := first(req.Model, req.Name)
	name := parseName(asked)
	if !name.Valid() || asked == "" {
		writeError(w, http.StatusBadRequest, "invalid model name")
		return
	}
	name = existingName(name)
	work(w, r, req.Stream, func(ctx context.Context, report func(Progress)) error {
		return pullModel(ctx, Registry{name, req.Insecure}, report)
	})
}

// work runs a long task: its progress and its error as a stream, or its last line alone. In the
// stream an error is one more line of an answer that said 200; alone it is a 500.
func work(w http.ResponseWriter, r *http.Request, streaming *bool, task func(context.Context, func(Progress)) error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	events := make(chan any)
	go func() {
		defer close(events)
		report := func(p Progress) {
			select {
			case events <- p:
			case <-ctx.Done():
			}
		}
		if err := task(ctx, report); err != nil {
			select {
			case events <- failed(err):
			case <-ctx.Done():
			}
		}
	}()
	if streaming == nil || *streaming {
		stream(w, events)
		return
	}
	var last any
	for event := range events {
		if failure, ok := event.(Failure); ok {
			writeError(w, failure.status, failure.Error)
			return
		}
		last = event
	}
	if last == nil {
		writeError(w, http.StatusInternalServerError, "unexpected end of progress response")
		return
	}
	writeJSON(w, http.StatusOK, last)
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
	if gone := without(before, m.all()); len(gone) > 0 {
		report(Progress{Status: "removing unused layers"})
		removeUnused(gone)
	}
	report(Progress{Status: "success"})
	return nil
}

func verifyBlob(digest string) error {
	got, err := sha256File(blobPath(digest))
	if err != nil {
		return err
	}
	if got == digest {
		return nil
	}
	if err := os.Remove(blobPath(digest)); err != nil && !errors.Is(err, os.ErrNotExist) {
		logInfo("images.go", fmt.Sprintf("couldn't remove file with digest mismatch '%s': %v", blobPath(digest), err))
	}
	return fmt.Errorf("digest mismatch, file must be downloaded again: want %s, got %s", digest, got)
}

func without(layers, kept []Layer) (gone []Layer) {
	used := map[string]bool{}
	for _, layer := range kept {
		used[layer.Digest] = true
	}
	for _, layer := range layers {
		if !used[layer.Digest] {
			gone = append(gone, layer)
		}
	}
	return gone
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
