package main

// The HTTP server: start, routes, the Host and Origin rules, access log, end on a signal.

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"
)

// Server holds what the handlers share.
type Server struct {
	addr  net.Addr
	sched *Scheduler
}

func serve() error {
	if err := ensureKeypair(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", envHost().Host)
	if err != nil {
		return err
	}
	logInfo("routes.go", "server config", "env", envValues())
	logInfo("routes.go", fmt.Sprintf("Ollama cloud disabled: %v", envBool("OLLAMA_NO_CLOUD")))
	if err := os.MkdirAll(blobsDir(), 0o755); err != nil {
		return err
	}
	if !envBool("OLLAMA_NOPRUNE") {
		if err := prune(); err != nil {
			return err
		}
	}
	s := &Server{addr: listener.Addr(), sched: newScheduler()}
	server := &http.Server{Handler: s.handler()}

	// No drain: streams are cut and the children killed. SIGKILL leaves the children behind.
	ended := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		server.Close()
		s.sched.unloadAll()
		close(ended)
	}()

	logInfo("routes.go", fmt.Sprintf("Listening on %s (version %s)", listener.Addr(), Version))
	discover()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ended
	return nil
}

type routes map[string]map[string]http.HandlerFunc

func (s *Server) routes() routes {
	alive := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, "Ollama is running")
	}
	version := func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"version": Version})
	}
	get := func(h http.HandlerFunc) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{http.MethodGet: h, http.MethodHead: h}
	}
	post := func(h http.HandlerFunc) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{http.MethodPost: h}
	}
	table := absentRoutes()
	for path, methods := range (routes{
		"/":                    get(alive),
		"/api/version":         get(version),
		"/api/tags":            get(s.tags),
		"/api/ps":              {http.MethodGet: s.ps},
		"/api/show":            post(s.show),
		"/api/pull":            post(s.pull),
		"/api/create":          post(s.create),
		"/api/copy":            post(s.copy),
		"/api/delete":          {http.MethodDelete: s.remove},
		"/api/generate":        post(s.generate),
		"/api/chat":            post(s.chat),
		"/api/embed":           post(s.embed),
		"/api/embeddings":      post(s.embeddings),
		"/v1/models":           {http.MethodGet: s.v1Models},
		"/v1/chat/completions": post(s.v1Chat),
		"/v1/completions":      post(s.v1Completions),
		"/v1/embeddings":       post(s.v1Embeddings),
		"/v1/responses":        post(s.v1Responses),
		"/v1/messages":         post(s.v1Messages),
		"/api/blobs/":          {http.MethodPost: s.blobCreate, http.MethodHead: s.blobHead},
		"/v1/models/":          {http.MethodGet: s.v1Model},
	}) {
		table[path] = methods
	}
	return table
}

// handler is the outermost layer: log, then Origin, then Host, then the routes.
func (s *Server) handler() http.Handler {
	table := s.routes()
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if redirected(rw, r, table) {
			return
		}
		start := time.Now()
		w := &recorder{ResponseWriter: rw, status: http.StatusOK}
		defer func() {
			ip, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Printf("[GIN] %s | %3d | %13v | %15s | %-7s %q\n", start.Format("2006/01/02 - 15:04:05"),
				w.status, time.Since(start).Round(time.Microsecond), ip, r.Method, r.URL.Path)
		}()
		if !corsAllows(w, r) || !s.hostAllows(w, r) {
			return
		}
		asked := r.URL.Path
		methods, ok := table[asked]
		for _, prefix := range []string{"/api/blobs/", "/v1/models/", "/api/user/keys/"} {
			if rest := strings.TrimPrefix(asked, prefix); rest != asked {
				methods, ok = table[prefix], rest != ""
			}
		}
		if !ok {
			plain(w, http.StatusNotFound, "404 page not found")
			return
		}
		if h := methods[r.Method]; h != nil {
			h(w, r)
			return
		}
		var allowed []string
		for method := range methods {
			allowed = append(allowed, method)
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		plain(w, http.StatusMethodNotAllowed, "405 method not allowed")
	})
}

// redirected answers the paths that never reach the layers below: one that is not clean (307, by Go's
// ServeMux), and one with a slash too many (301, or 307 for what is not GET, by gin).
func redirected(w http.ResponseWriter, r *http.Request, table routes) bool {
	to, status := path.Clean(r.URL.Path), http.StatusTemporaryRedirect
	if strings.HasSuffix(r.URL.Path, "/") && to != "/" {
		to += "/"
	}
	if to == r.URL.Path {
		to = strings.TrimSuffix(to, "/")
		if to == "" || to == r.URL.Path || table[to][r.Method] == nil {
			return false
		}
		if r.Method == http.MethodGet {
			status = http.StatusMovedPermanently
		}
	}
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	http.Redirect(w, r, to, status)
	return true
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	writeAs(w, "application/json; charset=utf-8", status, value)
}

// writeV1 is how the other dialects do it, without a charset.
func writeV1(w http.ResponseWriter, status int, value any) {
	writeAs(w, "application/json", status, value)
}

func writeAs(w http.ResponseWriter, kind string, status int, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":"marshal"}`)
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]string{"error": message})
}

// fail writes an error in the form of the path's dialect.
func fail(w http.ResponseWriter, r *http.Request, status int, message string) {
	switch {
	case r.URL.Path == "/v1/messages":
		messagesError(w, status, message)
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		v1Error(w, status, message)
	default:
		writeError(w, status, message)
	}
}

// Failure is the end of a task that failed: a status before the first line, one more line after it.
type Failure struct {
	Error  string `json:"error"`
	status int
}

// statusError is an error that says with which status it is answered.
type statusError struct {
	status int
	text   string
}

func (e statusError) Error() string { return e.text }

func failed(err error) Failure {
	var known statusError
	if errors.As(err, &known) {
		return Failure{err.Error(), known.status}
	}
	return Failure{err.Error(), http.StatusInternalServerError}
}

// readJSON answers 400 itself and says whether to go on.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	switch err := json.NewDecoder(bufio.NewReader(r.Body)).Decode(into); {
	case errors.Is(err, io.EOF):
		writeError(w, http.StatusBadRequest, "missing request body")
	case err != nil:
		writeError(w, http.StatusBadRequest, err.Error())
	default:
		return true
	}
	return false
}

// stream sends a line for each event. An error after the first line can only be one more line.
func stream(w http.ResponseWriter, events <-chan any) {
	started := false
	for event := range events {
		if failure, ok := event.(Failure); ok && !started {
			writeError(w, failure.status, failure.Error)
			continue
		}
		started = true
		w.Header().Set("Content-Type", "application/x-ndjson")
		data, err := json.Marshal(event)
		if err != nil {
			logError("routes.go", "streamResponse: json.Marshal failed", "error", err)
			continue
		}
		if _, err := w.Write(append(data, '\n')); err != nil {
			continue
		}
		w.(http.Flusher).Flush()
	}
}

// corsAllows: a browser's Origin must be among OLLAMA_ORIGINS, or be the server itself.
func corsAllows(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || origin == "http://"+r.Host || origin == "https://"+r.Host {
		return true
	}
	for _, pattern := range envOrigins() {
		before, after, wild := strings.Cut(strings.TrimSpace(pattern), "*")
		if origin == pattern || wild && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after) {
			w.Header().Set("Access-Control-Allow-Origin", origin)
			if r.Method != http.MethodOptions {
				return true
			}
			w.Header().Set("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS")
			w.Header().Set("Access-Control-Allow-Headers", "Authorization,Content-Type,User-Agent,Accept,X-Requested-With")
			w.WriteHeader(http.StatusNoContent)
			return false
		}
	}
	w.WriteHeader(http.StatusForbidden)
	return false
}

// hostAllows: on a loopback listener the Host header must be local (against DNS rebinding); the 403 has no body.
func (s *Server) hostAllows(w http.ResponseWriter, r *http.Request) bool {
	addr, err := netip.ParseAddrPort(s.addr.String())
	if err == nil && !addr.Addr().IsLoopback() {
		return true
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if ip.IsLoopback() || ip.IsPrivate() || ip.IsUnspecified() || isInterface(ip) {
			return true
		}
	}
	if !localName(host) {
		w.WriteHeader(http.StatusForbidden)
		return false
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return false
	}
	return true
}

func isInterface(ip netip.Addr) bool {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == ip {
			return true
		}
	}
	return false
}

func localName(host string) bool {
	host = strings.ToLower(host)
	if host == "" || host == "localhost" {
		return true
	}
	if name, err := os.Hostname(); err == nil && host == strings.ToLower(name) {
		return true
	}
	for _, suffix := range []string{".localhost", ".local", ".internal"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}
