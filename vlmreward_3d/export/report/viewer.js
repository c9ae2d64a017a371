// A mesh with vertex colors that turns under the pointer. The canvas carries its data.
(() => {
  const canvas = document.getElementById("model");
  if (!canvas) return; // splats have no mesh
  const bytes = (name) => Uint8Array.from(atob(canvas.dataset[name]), (c) => c.charCodeAt(0));
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
  if (!gl) {
    canvas.replaceWith("This browser offers no WebGL 2; open the mesh in another program.");
    return;
  }
  const shader = (kind, text) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, text);
    gl.compileShader(made);
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `#version 300 es
    in vec3 position; in vec3 normal; in vec3 color;
    uniform mat3 turn; uniform float distance, slope, near, far, aspect;
    out vec3 seen; out vec3 facing;
    void main() {
      vec3 p = turn * position;
      p.z -= distance;
      seen = color;
      facing = turn * normal;
      float depth = (far + near) / (near - far) * p.z + 2.0 * far * near / (near - far);
      gl_Position = vec4(p.x / (slope * aspect), p.y / slope, depth, -p.z);
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `#version 300 es
    precision mediump float;
    in vec3 seen; in vec3 facing; out vec4 pixel;
    void main() {
      float light = 0.8 + 0.2 * max(normalize(facing).z, 0.0);
      pixel = vec4(seen * light, 1.0);
    }`));
  gl.linkProgram(program);
  gl.useProgram(program);
  const attribute = (name, type, normalized) => {
    const at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, bytes(name), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, 3, type, normalized, 0, 0);
  };
  attribute("position", gl.FLOAT, false);
  attribute("normal", gl.BYTE, true);
  attribute("color", gl.UNSIGNED_BYTE, true);
  const faces = bytes("faces");
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  gl.enable(gl.DEPTH_TEST);

  // positions fill the unit ball, y up; the front (+x of the world) looks at the reader
  const slope = Math.tan(Math.PI / 9);
  const home = { around: -Math.PI / 2 + 0.6, above: 0.3, distance: 1.06 / Math.sin(Math.PI / 9) };
  let view = { ...home };
  const set = (name, value) => gl.uniform1f(gl.getUniformLocation(program, name), value);
  const draw = () => {
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    const height = Math.round(canvas.clientHeight * devicePixelRatio);
    if (canvas.width !== width || canvas.height !== height) {
      [canvas.width, canvas.height] = [width, height];
    }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [s, c] = [Math.sin(view.around), Math.cos(view.around)];
    const [t, d] = [Math.sin(view.above), Math.cos(view.above)];
    gl.uniformMatrix3fv(gl.getUniformLocation(program, "turn"), false,
      [c, t * s, -d * s, 0, d, t, s, -t * c, d * c]);
    set("distance", view.distance);
    set("slope", slope);
    set("aspect", width / height);
    set("near", Math.max(view.distance - 1.1, 0.02));
    set("far", view.distance + 1.1);
    gl.drawElements(gl.TRIANGLES, faces.length / 4, gl.UNSIGNED_INT, 0);
  };
  const turned = (dx, dy, zoom = 1) => {
    view.around += dx;
    view.above = Math.min(Math.max(view.above + dy, -1.5), 1.5);
    view.distance = Math.min(Math.max(view.distance * zoom, 1), 12);
    requestAnimationFrame(draw);
  };

  const pointers = new Map();
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const was = pointers.size === 2 ? spread() : 0;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 2) turned(0, 0, was / Math.max(spread(), 1));
    else turned((event.clientX - before[0]) * 0.01, (event.clientY - before[1]) * 0.01);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    turned(0, 0, Math.exp(event.deltaY * 0.001));
  }, { passive: false });
  canvas.addEventListener("dblclick", () => {
    view = { ...home };
    requestAnimationFrame(draw);
  });
  const keys = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1],
    "+": [0, 0, 0.9], "-": [0, 0, 1.1] };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    turned(...keys[event.key]);
  });
  new ResizeObserver(draw).observe(canvas);
})();
