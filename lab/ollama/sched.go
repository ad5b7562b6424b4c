package main

// Which models are loaded: one queue in order, reuse, reload when the load's options differ, room for a
// new one by unloading the one due first, and keep_alive.

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

var errQueueFull = errors.New("server busy, please try again.  maximum pending requests exceeded")

const (
	standardModels      = 3  // for each GPU, or for the CPU
	loadHeadroomPercent = 80 // of the free memory, for a model beside others
)

// Scheduler owns the children.
type Scheduler struct {
	mu      sync.Mutex
	loaded  map[string]*loadedModel // by path of the weights
	pending chan *loadRequest
	freed   chan struct{}
	closed  bool
}

type loadedModel struct {
	model    *Model
	runner   *Runner
	options  Options // context as given to the child, a slot
	parallel int
	size     int64
	onGPU    int64
	refs     int
	keep     time.Duration
	expires  time.Time
	timer    *time.Timer
	doomed   bool // makes room as soon as it is idle
}

type loadRequest struct {
	ctx     context.Context
	model   *Model
	head    *GGUF
	options Options
	keep    *time.Duration
	answer  chan loadAnswer
}

type loadAnswer struct {
	loaded *loadedModel
	err    error
}

func newScheduler() *Scheduler {
	s := &Scheduler{loaded: map[string]*loadedModel{}, freed: make(chan struct{}, 1),
		pending: make(chan *loadRequest, envUint("OLLAMA_MAX_QUEUE", 512))}
	go func() {
		for req := range s.pending {
			if req.ctx.Err() != nil {
				continue
			}
			l, err := s.provide(req)
			req.answer <- loadAnswer{l, err}
		}
	}()
	return s
}

// acquire gives a loaded model; its caller must call release. One that is there is used at once; to
// load, requests queue, and a full queue refuses.
func (s *Scheduler) acquire(ctx context.Context, m *Model, o Options, keep *time.Duration) (*loadedModel, error) {
	head, err := readGGUF(m.Weights)
	if err != nil {
		return nil, err
	}
	if limit := head.contextLimit(); limit > 0 && o.NumCtx > limit {
		logWarn("server.go", "requested context size too large for model", "num_ctx", o.NumCtx, "n_ctx_train", limit)
		o.NumCtx = limit
	}
	req := &loadRequest{ctx, m, head, o, keep, make(chan loadAnswer, 1)}
	s.mu.Lock()
	current := s.loaded[m.Weights]
	s.mu.Unlock()
	if current != nil && s.usable(req, current) {
		return current, nil
	}
	select {
	case s.pending <- req:
	default:
		return nil, errQueueFull
	}
	select {
	case answer := <-req.answer:
		return answer.loaded, answer.err
	case <-ctx.Done():
		go func() {
			if answer := <-req.answer; answer.loaded != nil {
				s.release(answer.loaded)
			}
		}()
		return nil, ctx.Err()
	}
}

// provide runs alone: while it loads, later requests wait in the queue.
func (s *Scheduler) provide(req *loadRequest) (*loadedModel, error) {
	limit := int(envUint("OLLAMA_MAX_LOADED_MODELS", 0))
	if limit == 0 {
		limit = standardModels * larger(len(devices), 1)
	}
	size := estimate(req.model, req.head, req.options.NumCtx*parallelRequests())
	for {
		s.mu.Lock()
		current, victim := s.loaded[req.model.Weights], (*loadedModel)(nil)
		s.mu.Unlock()
		if current != nil && s.usable(req, current) {
			return current, nil
		}
		s.mu.Lock()
		if current != nil {
			victim = current
		} else if len(s.loaded) >= limit || s.crowded(req, size) {
			victim = s.dueFirst()
		}
		if victim == nil {
			s.mu.Unlock()
			return s.load(req)
		}
		victim.doomed = true
		if victim.refs == 0 {
			s.unload(victim)
		}
		s.mu.Unlock()
		select {
		case <-s.freed:
		case <-time.After(50 * time.Millisecond):
		case <-req.ctx.Done():
			return nil, req.ctx.Err()
		}
	}
}

// usable takes a reference on a loaded model whose child answers and was started with the same options.
// Names that share weights share the child: /api/ps goes on showing the one that loaded it.
func (s *Scheduler) usable(req *loadRequest, l *loadedModel) bool {
	if l.options.loadOptions != req.options.loadOptions ||
		l.model.hasTemplate() != req.model.hasTemplate() || !l.runner.healthy(req.ctx) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded[l.model.Weights] != l || l.doomed {
		return false
	}
	l.refs++
	if l.timer != nil {
		l.timer.Stop()
	}
	if req.keep != nil {
		l.keep = *req.keep
	}
	return true
}

func (s *Scheduler) load(req *loadRequest) (*loadedModel, error) {
	parallel := parallelRequests()
	runner, err := startRunner(req.model, req.head, req.options, parallel)
	if err != nil {
		return nil, err
	}
	keep := envKeepAlive()
	if req.keep != nil {
		keep = *req.keep
	}
	l := &loadedModel{model: req.model, runner: runner, options: req.options, parallel: parallel, refs: 1, keep: keep,
		size: estimate(req.model, req.head, req.options.NumCtx*parallel)}
	s.mu.Lock()
	if req.options.NumGPU != 0 {
		l.onGPU = onGPU(l.size, placeable(s.taken()), req.head.layers())
	}
	if s.closed {
		s.mu.Unlock()
		runner.stop()
		return nil, context.Canceled
	}
	s.loaded[req.model.Weights] = l
	s.mu.Unlock()
	if err := runner.waitUntilRunning(req.ctx); err != nil {
		s.mu.Lock()
		s.unload(l)
		s.mu.Unlock()
		return nil, err
	}
	return l, nil
}

func parallelRequests() int { return larger(int(envUint("OLLAMA_NUM_PARALLEL", 1)), 1) }

// taken is what loaded models hold of the GPUs; called with the lock held.
func (s *Scheduler) taken() (sum int64) {
	for _, l := range s.loaded {
		sum += l.onGPU
	}
	return sum
}

// crowded: the model would fit on the GPUs, were it not for those that are loaded, or not for the fifth of
// what they leave that has to stay free.
func (s *Scheduler) crowded(req *loadRequest, size int64) bool {
	if len(devices) == 0 || len(s.loaded) == 0 || req.options.NumGPU == 0 {
		return false
	}
	return size > placeable(s.taken())*loadHeadroomPercent/100
}

// release starts the time to live, or unloads at once.
func (s *Scheduler) release(l *loadedModel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.refs--
	if l.refs > 0 || s.loaded[l.model.Weights] != l {
		return
	}
	if l.keep <= 0 || l.doomed {
		s.unload(l)
		return
	}
	l.expires = time.Now().Add(l.keep)
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timer = time.AfterFunc(l.keep, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.refs == 0 && s.loaded[l.model.Weights] == l {
			s.unload(l)
		}
	})
}

// expire unloads a model now, or as soon as its last request ends.
func (s *Scheduler) expire(m *Model) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.loaded[m.Weights]; l != nil {
		l.keep = 0
		if l.refs == 0 {
			s.unload(l)
		}
	}
}

// unload is called with the lock held.
func (s *Scheduler) unload(l *loadedModel) {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.runner.stop()
	if s.loaded[l.model.Weights] == l {
		delete(s.loaded, l.model.Weights)
	}
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

func (s *Scheduler) unloadAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, l := range s.loaded {
		s.unload(l)
	}
}

// dueFirst is an idle model before a busy one, then the one with the shortest time to live.
func (s *Scheduler) dueFirst() (due *loadedModel) {
	for _, l := range s.loaded {
		if due == nil || (l.refs == 0) != (due.refs == 0) && l.refs == 0 || (l.refs == 0) == (due.refs == 0) && l.keep < due.keep {
			due = l
		}
	}
	return due
}

// estimate is what /api/ps shows as size: the weights, the cache for the context, and buffers.
func estimate(m *Model, head *GGUF, ctx int) int64 {
	perToken := 0.0
	arch := head.arch()
	if layers := head.number(arch + ".block_count"); layers > 0 {
		width := head.number(arch+".attention.head_count_kv") * head.number(arch+".attention.key_length")
		perToken = float64(layers*width*2*2) / 3 // most layers keep a window only
	}
	switch envVar("OLLAMA_KV_CACHE_TYPE") {
	case "q8_0":
		perToken *= 0.53
	case "q4_0":
		perToken *= 0.28
	}
	weights := int64(0)
	if layer := m.Manifest.layer("model"); layer != nil {
		weights = layer.Size
	}
	batch := batchSize(head, ctx)
	logits := uint64(0) // of a whole batch, four bytes a word, where embeddings are made
	if head.pooled() {
		logits = uint64(batch) * head.words * 4
	}
	return weights + int64(math.Round(perToken*float64(ctx))) + int64(batch)<<14 + int64(logits)
}
