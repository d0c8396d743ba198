package links;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.stream.Collectors;

/** A link shortener: the JDK's HTTP server in front of {@link Links}. */
public final class Main {
    private static final int MAX_BODY = 8 * 1024;
    private static final int THREADS = 64;
    /** Cloud Run kills ten seconds after the SIGTERM. */
    private static final int DRAIN_SECONDS = 8;

    private final Links links = new Links();
    private final String service = env("K_SERVICE", "java");
    private final String revision = env("K_REVISION", "local");
    private final byte[] page;

    private Main() throws IOException {
        try (InputStream in = Main.class.getResourceAsStream("page.html")) {
            page = new String(in.readAllBytes(), StandardCharsets.UTF_8)
                    .replace("{{service}}", html(service))
                    .replace("{{revision}}", html(revision))
                    .getBytes(StandardCharsets.UTF_8);
        }
    }

    /** Serves until a SIGTERM. */
    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(env("PORT", "8080"));
        HttpServer server = HttpServer.create(new InetSocketAddress("0.0.0.0", port), 1024);
        ExecutorService threads = Executors.newFixedThreadPool(THREADS);
        server.setExecutor(threads);
        server.createContext("/", new Main()::handle);
        server.start();
        log("INFO", "listening on port " + port);
        // The build runs the program once with this argument, to record which classes a start loads.
        boolean recording = args.length > 0 && args[0].equals("--exit-after-start");
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            log("INFO", "finishing the requests in progress");
            server.stop(recording ? 0 : drain());
            threads.shutdown();
            if (!recording) {
                // Being asked to stop is no failure; the virtual machine would say 143.
                Runtime.getRuntime().halt(0);
            }
        }));
        if (recording) {
            warmUp(server.getAddress().getPort());
            System.exit(0);
        }
    }

    private static int inFlight = 0;

    /** The JDK's server waits the whole time it is given, so it is given none when nothing is in progress. */
    private static synchronized int drain() {
        return inFlight == 0 ? 0 : DRAIN_SECONDS;
    }

    private static synchronized void count(int change) {
        inFlight += change;
    }

    private void handle(HttpExchange exchange) throws IOException {
        count(1);
        try (exchange) {
            route(exchange);
        } catch (Links.Refused refused) {
            answer(exchange, 400, "application/json", "{\"error\":" + json(refused.getMessage()) + "}\n");
        } catch (RuntimeException e) {
            log("ERROR", e.toString());
            answer(exchange, 500, "application/json", "{\"error\":\"internal error\"}\n");
        } finally {
            count(-1);
        }
    }

    private void route(HttpExchange exchange) throws IOException, Links.Refused {
        String path = exchange.getRequestURI().getPath();
        String what = exchange.getRequestMethod() + " " + path;
        switch (what) {
            case "GET /", "HEAD /" -> answer(exchange, 200, "text/html; charset=utf-8", page);
            case "GET /api/links" -> answer(exchange, 200, "application/json",
                    links.list().stream().map(Main::json).collect(Collectors.joining(",", "[", "]\n")));
            case "POST /api/links" -> {
                byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY + 1);
                Links.Link link = links.shorten(new String(body, StandardCharsets.UTF_8));
                answer(exchange, 201, "application/json", json(link) + "\n");
            }
            default -> follow(exchange, path.substring(1));
        }
    }

    private void follow(HttpExchange exchange, String code) throws IOException {
        Optional<Links.Link> link = links.visit(code);
        if (link.isEmpty()) {
            answer(exchange, 404, "application/json", "{\"error\":\"there is no such link\"}\n");
            return;
        }
        exchange.getResponseHeaders().set("Location", link.get().url());
        answer(exchange, 302, "text/plain", "");
    }

    private static void answer(HttpExchange exchange, int status, String type, String body) throws IOException {
        answer(exchange, status, type, body.getBytes(StandardCharsets.UTF_8));
    }

    private static void answer(HttpExchange exchange, int status, String type, byte[] body) throws IOException {
        exchange.getResponseHeaders().set("Content-Type", type);
        boolean empty = body.length == 0 || exchange.getRequestMethod().equals("HEAD");
        exchange.sendResponseHeaders(status, empty ? -1 : body.length);
        if (!empty) {
            try (OutputStream out = exchange.getResponseBody()) {
                out.write(body);
            }
        }
    }

    private static String json(Links.Link link) {
        return "{\"code\":" + json(link.code()) + ",\"url\":" + json(link.url()) + ",\"visits\":" + link.visits() + "}";
    }

    private static String json(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < 0x20) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    private static String html(String text) {
        return text.replace("&", "&amp;").replace("<", "&lt;");
    }

    private static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }

    private static void log(String severity, String message) {
        System.out.println("{\"severity\":\"" + severity + "\",\"message\":" + json(message) + "}");
    }

    /** One request of each kind, so that the classes they load are in the archive. */
    private static void warmUp(int port) throws IOException {
        for (String request : new String[] {
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "POST /api/links HTTP/1.1\r\nHost: h\r\nContent-Length: 19\r\nConnection: close\r\n\r\nhttp://example.org/",
            "GET /api/links HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        }) {
            try (java.net.Socket socket = new java.net.Socket("127.0.0.1", port)) {
                socket.getOutputStream().write(request.getBytes(StandardCharsets.US_ASCII));
                socket.getInputStream().readAllBytes();
            }
        }
    }
}
