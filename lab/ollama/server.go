package main

// The HTTP server: start, routes, the Host and Origin rules, access log, end on a signal.

import (
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

// routes are handlers by method and path; a star stands for all below a path.
type routes map[string]http.HandlerFunc

func (s *Server) routes() routes {
	alive := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, "Ollama is running")
	}
	version := func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"version": Version})
	}
	table := absentRoutes()
	for path, handler := range (routes{
		"GET /":                     alive,
		"HEAD /":                    alive,
		"GET /api/version":          version,
		"HEAD /api/version":         version,
		"GET /api/tags":             s.tags,
		"HEAD /api/tags":            s.tags,
		"GET /api/ps":               s.ps,
		"POST /api/show":            asked(s.show),
		"POST /api/pull":            asked(s.pull),
		"POST /api/create":          asked(s.create),
		"POST /api/copy":            asked(s.copy),
		"DELETE /api/delete":        asked(s.remove),
		"POST /api/generate":        asked(s.native(false)),
		"POST /api/chat":            asked(s.native(true)),
		"POST /api/embed":           asked(s.embed),
		"POST /api/embeddings":      asked(s.embeddings),
		"POST /api/blobs/*":         s.blobCreate,
		"HEAD /api/blobs/*":         s.blobHead,
		"GET /v1/models":            s.v1Models,
		"GET /v1/models/*":          s.v1Model,
		"POST /v1/chat/completions": asked(s.v1Chat),
		"POST /v1/completions":      asked(s.v1Completions),
		"POST /v1/embeddings":       asked(s.v1Embeddings),
		"POST /v1/responses":        asked(s.v1Responses),
		"POST /v1/messages":         asked(s.v1Messages),
	}) {
		table[path] = handler
	}
	return table
}

// find gives the handler, and the methods that the path has.
func (t routes) find(method, path string) (handler http.HandlerFunc, methods []string) {
	for _, prefix := range []string{"/api/blobs/", "/v1/models/", "/api/user/keys/"} {
		if rest := strings.TrimPrefix(path, prefix); rest != "" && rest != path {
			path = prefix + "*"
		}
	}
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		if t[m+" "+path] != nil {
			methods = append(methods, m)
		}
	}
	return t[method+" "+path], methods
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
		handle, methods := table.find(r.Method, r.URL.Path)
		switch {
		case handle != nil:
			handle(w, r)
		case methods == nil:
			plain(w, http.StatusNotFound, "404 page not found")
		default:
			w.Header().Set("Allow", strings.Join(methods, ", "))
			plain(w, http.StatusMethodNotAllowed, "405 method not allowed")
		}
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
		if to == "" || to == r.URL.Path || table[r.Method+" "+to] == nil {
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

// fail writes an error in the form of the path's dialect.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	var known statusError
	if errors.As(err, &known) {
		status = known.status
	}
	switch {
	case r.URL.Path == "/v1/messages":
		writeV1(w, status, map[string]any{"type": "error", "error": map[string]any{"type": errorKind(status), "message": err.Error()}})
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		writeV1(w, status, map[string]any{"error": map[string]any{
			"message": err.Error(), "type": errorKind(status), "param": nil, "code": nil}})
	default:
		writeJSON(w, status, map[string]string{"error": err.Error()})
	}
}

// errorKind is the word for a status in both of the other dialects.
func errorKind(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "invalid_request_error"
	case http.StatusNotFound:
		return "not_found_error"
	}
	return "api_error"
}

// statusError is an error that says with which status it is answered.
type statusError struct {
	status int
	text   string
}

func (e statusError) Error() string { return e.text }

func refuse(status int, format string, values ...any) error {
	return statusError{status, fmt.Sprintf(format, values...)}
}

// asked reads the body for a handler, and answers what it returns.
func asked[T any](h func(http.ResponseWriter, *http.Request, *T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := new(T)
		err := json.NewDecoder(r.Body).Decode(q)
		if errors.Is(err, io.EOF) && strings.HasPrefix(r.URL.Path, "/api/") {
			err = errors.New("missing request body")
		}
		if err != nil {
			err = refuse(http.StatusBadRequest, "%v", err)
		} else {
			err = h(w, r, q)
		}
		if err != nil {
			fail(w, r, err)
		}
	}
}

// lines is a native stream. An error after its first line can only be one more line.
type lines struct {
	w       http.ResponseWriter
	started bool
}

func (s *lines) send(value any) {
	s.started = true
	s.w.Header().Set("Content-Type", "application/x-ndjson")
	_ = json.NewEncoder(s.w).Encode(value)
	s.w.(http.Flusher).Flush()
}

func (s *lines) end(err error) error {
	if err == nil || !s.started {
		return err
	}
	s.send(map[string]string{"error": err.Error()})
	return nil
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
