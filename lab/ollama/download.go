package main

// A blob's download: parts fetched side by side into one sparse file, resumed from small JSON files.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxParts    = 16
	minPartSize = 100_000_000
	maxPartSize = 1_000_000_000
	maxTries    = 6
)

// downloads holds the running ones by digest: two pulls of one blob share it.
var (
	downloads   = map[string]*download{}
	downloadsMu sync.Mutex
)

type download struct {
	path, digest string
	total        int64
	completed    int64
	parts        []*part
	cancel       context.CancelFunc
	done         chan struct{}
	err          error
	waiting      int32
}

type part struct {
	N                       int
	Offset, Size, Completed int64
}

func (p *part) file(d *download) string { return d.path + "-partial-" + strconv.Itoa(p.N) }

func (p *part) save(d *download) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(p.file(d), append(data, '\n'), 0o644)
}

// fetchBlob brings a blob onto the disk. One that is there is taken as it is: hit, never hashed again.
func fetchBlob(ctx context.Context, g Registry, digest string, report func(Progress)) (hit bool, err error) {
	if digest == "" {
		return false, fmt.Errorf("%s/%s: digest is empty", g.name.Namespace, g.name.Model)
	}
	digest, ok := validDigest(digest)
	if !ok {
		return false, errors.New("invalid digest format")
	}
	path := blobPath(digest)
	if info, err := os.Stat(path); err == nil {
		report(Progress{"pulling " + digest[7:19], digest, info.Size(), info.Size()})
		return true, nil
	}
	downloadsMu.Lock()
	d := downloads[digest]
	if d == nil {
		d = &download{path: path, digest: digest, done: make(chan struct{})}
		if err := d.prepare(ctx, g); err != nil {
			downloadsMu.Unlock()
			return false, err
		}
		downloads[digest] = d
		inner, cancel := context.WithCancel(context.Background())
		d.cancel = cancel
		go d.run(inner, g)
	}
	atomic.AddInt32(&d.waiting, 1)
	downloadsMu.Unlock()
	return false, d.wait(ctx, report)
}

// wait reports until the end. When the last one who waits has gone, the download stops.
func (d *download) wait(ctx context.Context, report func(Progress)) error {
	defer func() {
		if atomic.AddInt32(&d.waiting, -1) == 0 {
			d.cancel()
		}
	}()
	ticker := time.NewTicker(60 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-d.done:
			return d.err
		case <-ticker.C:
			report(Progress{"pulling " + d.digest[7:19], d.digest, d.total, atomic.LoadInt64(&d.completed)})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// prepare reads the parts left by an earlier try, or asks for the size and plans new ones.
func (d *download) prepare(ctx context.Context, g Registry) error {
	left, err := filepath.Glob(d.path + "-partial-*")
	if err != nil {
		return err
	}
	for _, path := range left {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		p := &part{}
		if err := json.Unmarshal(data, p); err != nil {
			return err
		}
		d.total += p.Size
		d.completed += p.Completed
		d.parts = append(d.parts, p)
	}
	if len(d.parts) == 0 {
		if err := d.plan(ctx, g); err != nil {
			return err
		}
	}
	if len(d.parts) > 0 {
		logInfo("download.go", fmt.Sprintf("downloading %s in %d %d MB part(s)", d.digest[7:19], len(d.parts), d.parts[0].Size/1e6))
	}
	return nil
}

func (d *download) plan(ctx context.Context, g Registry) error {
	resp, err := g.do(ctx, http.MethodHead, g.url("blobs", d.digest), "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d.total, _ = strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64)
	size := d.total / maxParts
	if size < minPartSize {
		size = minPartSize
	} else if size > maxPartSize {
		size = maxPartSize
	}
	for offset := int64(0); offset < d.total; offset += size {
		if offset+size > d.total {
			size = d.total - offset
		}
		p := &part{N: len(d.parts), Offset: offset, Size: size}
		if err := p.save(d); err != nil {
			return err
		}
		d.parts = append(d.parts, p)
	}
	return nil
}

func (d *download) run(ctx context.Context, g Registry) {
	d.err = d.fetch(ctx, g)
	d.cancel()
	downloadsMu.Lock()
	delete(downloads, d.digest)
	downloadsMu.Unlock()
	close(d.done)
}

func (d *download) fetch(ctx context.Context, g Registry) error {
	file, err := os.OpenFile(d.path+"-partial", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_ = file.Truncate(d.total)
	direct, err := d.direct(ctx, g)
	if err != nil {
		return err
	}
	if err := d.fetchParts(ctx, direct, file); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	for _, p := range d.parts {
		if err := os.Remove(p.file(d)); err != nil {
			return err
		}
	}
	return os.Rename(file.Name(), d.path)
}

// direct asks for the blob once, without a range, to learn where its bytes are. Redirects on the same
// host are followed; the answer that ends them must carry a Location, whatever its status.
func (d *download) direct(ctx context.Context, g Registry) (*url.URL, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	asked := g.url("blobs", d.digest)
	follow := func(req *http.Request, via []*http.Request) error {
		if len(via) > 10 {
			return errors.New("maximum redirects exceeded (10) for directURL")
		}
		if req.URL.Hostname() == asked.Hostname() {
			return nil
		}
		return http.ErrUseLastResponse
	}
	for try := 1; ; try++ {
		resp, err := g.do(ctx, http.MethodGet, asked, "", follow)
		if err == nil {
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusTemporaryRedirect {
				return nil, fmt.Errorf("unexpected status code %d", resp.StatusCode)
			}
			return resp.Location()
		}
		logWarn("download.go", "failed to get direct URL; backing off and retrying", "err", err)
		pause := time.Duration(try*try) * 10 * time.Millisecond
		if pause > 10*time.Second {
			pause = 10 * time.Second
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (d *download) fetchParts(ctx context.Context, direct *url.URL, file *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	slots := make(chan struct{}, maxParts)
	for _, p := range d.parts {
		if p.Completed == p.Size {
			continue
		}
		slots <- struct{}{}
		wg.Add(1)
		go func(p *part) {
			defer func() { <-slots; wg.Done() }()
			if err := d.fetchPart(ctx, direct, file, p); err != nil {
				once.Do(func() { failed = err; cancel() })
			}
		}(p)
	}
	wg.Wait()
	return failed
}

// fetchPart tries six times. (The real one also gives up a part without a byte in 30 seconds.)
func (d *download) fetchPart(ctx context.Context, direct *url.URL, file *os.File, p *part) (err error) {
	for try := 0; try < maxTries; try++ {
		err = d.fetchRange(ctx, direct, file, p)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, context.Canceled), errors.Is(err, syscall.ENOSPC):
			return err
		default:
			pause := time.Second << try
			logInfo("download.go", fmt.Sprintf("%s part %d attempt %d failed: %v, retrying in %s", d.digest[7:19], p.N, try, err, pause))
			time.Sleep(pause)
		}
	}
	return fmt.Errorf("max retries exceeded: %w", err)
}

// fetchRange does not look at the status: a server that ignores Range puts the wrong bytes in the part.
func (d *download) fetchRange(ctx context.Context, direct *url.URL, file *os.File, p *part) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, direct.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.Offset+p.Completed, p.Offset+p.Size-1))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.CopyN(&partWriter{d, file, p.Offset + p.Completed}, resp.Body, p.Size-p.Completed)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, io.ErrUnexpectedEOF) {
		atomic.AddInt64(&d.completed, -n)
		return err
	}
	p.Completed += n
	if failed := p.save(d); failed != nil {
		return failed
	}
	return err
}

// partWriter writes to the file from a place on, and counts for the progress.
type partWriter struct {
	d    *download
	file *os.File
	at   int64
}

func (w *partWriter) Write(b []byte) (int, error) {
	n, err := w.file.WriteAt(b, w.at)
	w.at += int64(n)
	atomic.AddInt64(&w.d.completed, int64(n))
	return n, err
}
